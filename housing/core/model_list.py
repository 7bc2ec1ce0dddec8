"""The list of served models: names such as housing-california@production, in `serve.models` or in a file that is watched."""

import re
from pathlib import Path
from typing import Any

import yaml

from housing.core.errors import ConfigError

NAME_PATTERN = re.compile(r"\w[\w.-]*@\w[\w-]*", re.ASCII)  # needs no escape in a URL, and no slash in a path
FILE_SUFFIXES = (".yaml", ".yml")


class ModelList:
    """The names of the served models with their release folders. The first model answers the routes without a name."""

    def __init__(self, models: str, default: str, directory: Path) -> None:
        """Read the list: names with commas, a file, or "" for the default name, whose release folder is the directory itself.

        Raises ConfigError if the list is invalid, and OSError if its file cannot be read.
        """
        self._models, self._default, self._directory = models, default, directory
        self._file_state: tuple[int, ...] = ()
        self.folders: dict[str, Path] = {}
        self.refresh()

    def refresh(self) -> bool:
        """Read the list again if its file has changed. Return whether it differs. If it is invalid, raise; it then stays."""
        if not self._models:
            names, folders = [self._default], [self._directory]
        else:
            names = self._read_names(self._models)
            folders = [self._directory / name for name in names]
        before, self.folders = self.folders, dict(zip(names, folders, strict=True))
        return list(before) != names

    def _read_names(self, setting: str) -> list[str]:
        if not setting.endswith(FILE_SUFFIXES):
            return _validate(setting.split(","), "serve.models (HOUSING_MODELS)")
        path = Path(setting)
        status = path.stat()
        state = status.st_mtime_ns, status.st_ino, status.st_size
        if state == self._file_state:
            return list(self.folders)
        try:
            names = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} (serve.models) is not a YAML file: {error}") from error
        names = _validate(names, f"{path} (serve.models)")
        self._file_state = state
        return names


def split_name(name: str) -> tuple[str, str]:
    """Return the registered model and the alias of a name."""
    model, _, alias = name.rpartition("@")
    return model, alias


def _validate(names: Any, label: str) -> list[str]:
    expected = f"{label} must be a list of at least one MODEL@ALIAS, as in [housing-california@production]"
    if not isinstance(names, list) or not names:
        raise ConfigError(f"{expected} (got {names!r:.80}).")
    for name in names:
        if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name) or names.count(name) > 1:
            raise ConfigError(f"{expected}, each once, of letters, digits, - _ and . (got {name!r:.80}).")
    return names
