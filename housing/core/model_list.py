"""The list of served models: names such as housing-california@production, in `serve.models` or in a file that is watched.

In a file, a model may have limits of its own: {name: housing-california@production, max_rows: 100, max_body: 100000}.
"""

import difflib
import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from housing.core.errors import ConfigError
from housing.core.validators import integer

NAME_PATTERN = re.compile(r"\w[\w.-]*@\w[\w-]*", re.ASCII)  # needs no escape in a URL, and no slash in a path
FILE_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Limits:
    """The limits of requests to a model, beside those of the server: rows, and bytes of the body."""

    max_rows: int = sys.maxsize
    max_body: int = sys.maxsize


class ModelList:
    """The names of the served models with release folders and limits. The first model answers the routes without a name."""

    def __init__(self, models: str, default: str, directory: Path) -> None:
        """Read the list: names with commas, a file, or "" for the default name, whose release folder is the directory itself.

        Raises ConfigError if the list is invalid, and OSError if its file cannot be read.
        """
        self._models, self._default, self._directory = models, default, directory
        self._file_state: tuple[int, ...] = ()
        self.folders: dict[str, Path] = {}
        self.limits: dict[str, Limits] = {}
        self.refresh()

    def refresh(self) -> bool:
        """Read the list again if its file has changed. Return whether it differs. If it is invalid, raise; it then stays."""
        before = self.limits
        if self._models:
            self.limits = self._read_limits(self._models)
            self.folders = {name: self._directory / name for name in self.limits}
        else:
            self.limits, self.folders = {self._default: Limits()}, {self._default: self._directory}
        return list(before.items()) != list(self.limits.items())

    def _read_limits(self, setting: str) -> dict[str, Limits]:
        """Return the limits of each model."""
        if not setting.endswith(FILE_SUFFIXES):
            return _validate(setting.split(","), "serve.models (HOUSING_MODELS)")
        path = Path(setting)
        status = path.stat()
        state = status.st_mtime_ns, status.st_ino, status.st_size
        if state == self._file_state:
            return self.limits
        try:
            models = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} (serve.models) is not a YAML file: {error}") from error
        limits = _validate(models, f"{path} (serve.models)")
        self._file_state = state
        return limits


def split_name(name: str) -> tuple[str, str]:
    """Return the registered model and the alias of a name."""
    model, _, alias = name.rpartition("@")
    return model, alias


def _validate(models: Any, label: str) -> dict[str, Limits]:
    expected = f"{label} must be a list of at least one MODEL@ALIAS, as in [housing-california@production]"
    if not isinstance(models, list) or not models:
        raise ConfigError(f"{expected} (got {models!r:.80}).")
    limits: dict[str, Limits] = {}
    for model in models:
        name = model.get("name") if isinstance(model, dict) else model
        if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name) or name in limits:
            raise ConfigError(f"{expected}, each once, of letters, digits, - _ and . (got {model!r:.80}).")
        limits[name] = _validate_limits(model, f"{label}: {name}") if isinstance(model, dict) else Limits()
    return limits


def _validate_limits(model: dict[Any, Any], label: str) -> Limits:
    values, known = {key: value for key, value in model.items() if key != "name"}, [field.name for field in fields(Limits)]
    for key, value in values.items():
        if key not in known:
            nearest = difflib.get_close_matches(str(key), known, 1)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            raise ConfigError(f"{label} may have the limits {', '.join(known)} (got {key!r:.80}).{hint}")
        integer(1).validate(f"{label}: {key}", value)
    return Limits(**values)
