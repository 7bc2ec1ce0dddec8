"""Overrides that an agent may write: values of an experiment, without code, secrets and addresses of files."""

import re
from collections.abc import Sequence

from housing.core.errors import ConfigError

FORBIDDEN_TEXTS = ("_target_", "${")  # a class to call; a reference, such as to an environment variable
FORBIDDEN_KEYS = ("hydra", "paths", "mlflow", "export", "data.path", "output")  # these and the keys below them
LAUNCHERS = ("hydra/launcher", "hydra/sweeper")  # groups, whose choices are config files of the project


def require_allowed(overrides: Sequence[str]) -> None:
    """Raise ConfigError if an agent may not write one of the overrides."""
    for word in overrides:
        key = re.split(r"[=@]", word.lstrip("+~"))[0]
        if not word or word.startswith("-"):
            raise ConfigError(f"Expected overrides such as model=xgboost, without flags (got {word!r}).")
        if forbidden := next((text for text in FORBIDDEN_TEXTS if text in word), None):
            raise ConfigError(f"An agent may not write {forbidden} in an override (got {word}). Put it into a config file.")
        if key not in LAUNCHERS and _is_forbidden(key):
            raise ConfigError(f"An agent may not set {key} (got {word}). Set it where housing.mcp is started.")


def _is_forbidden(key: str) -> bool:
    return any(key == name or key.startswith((f"{name}.", f"{name}/")) for name in FORBIDDEN_KEYS)


def table_override(table: str | None) -> list[str]:
    """Return the override that chooses a table. None: the table of the project."""
    if table is None:
        return []
    return [f"data={plain('table', table)}"]


def plain(name: str, value: str) -> str:
    """Return a value of an override. Raise ConfigError if Hydra would not read it as plain text."""
    if not re.fullmatch(r"[\w.-]+", value):
        raise ConfigError(f"{name} must be letters, digits, dots, dashes and underscores (got {value!r}).")
    return value
