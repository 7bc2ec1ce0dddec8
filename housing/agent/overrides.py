"""Overrides that an agent may write: choices of config files and values of an experiment, by a list of allowed keys.

Everything else is refused: code, references to environment variables, files, addresses, and keys that nothing reads.
"""

import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, OverrideType, QuotedString, Sweep
from hydra.errors import HydraException

from housing.core.errors import ConfigError

GROUPS = (  # an agent chooses one of their config files
    *("data", "engine", "split", "evaluation", "features", "model", "interval", "metric_functions"),
    *("search", "experiment", "debug", "hydra/launcher", "hydra/sweeper"),
)
VALUES = (  # an agent sets these keys, and the existing keys below them
    *("engine", "split", "evaluation", "features", "model", "interval", "target", "metric", "seed", "max_rows", "refit"),
    *("n_threads", "figures", "log_model", "force_rerun", "fail_fast"),
    *("minutes", "max_row_microseconds", "max_bundle_megabytes", "max_candidates", "max_relative_rmse", "folds", "candidates"),
)
FORBIDDEN_PARTS = ("teacher",)  # of a key, besides _target_ and its like: a teacher may be a file that is unpickled
FORBIDDEN_CHARACTERS = "${}\\"  # without them, no value is a reference or a dictionary, however often Hydra parses it


def parse_overrides(words: Sequence[str]) -> Sequence[Override]:
    """Parse overrides by Hydra's grammar. Raise ConfigError if one is no override."""
    try:
        return OverridesParser.create().parse_overrides(list(words))
    except HydraException as error:
        raise ConfigError(f"Expected overrides such as model=linear,xgboost (got {list(words)}): {error}") from error


def require_allowed(words: Sequence[str]) -> None:
    """Raise ConfigError if an agent may not write one of the overrides."""
    for word in words:
        if not word or word.startswith("-"):
            raise ConfigError(f"Expected overrides such as model=xgboost, without flags (got {word!r}).")
        if forbidden := next((character for character in word if character in FORBIDDEN_CHARACTERS), None):
            raise ConfigError(
                f"An agent may not write {forbidden} in an override (got {word}). Put the value into a config file."
            )
    for override in parse_overrides(words):
        _require_allowed(override)


def _require_allowed(override: Override) -> None:
    key = override.key_or_group
    if override.type != OverrideType.CHANGE or override.package is not None:
        raise ConfigError(f"An agent may not add, delete or move keys (got {override.input_line}). Expected KEY=VALUE.")
    if key in GROUPS:
        for name in _elements(override):
            plain(key, name)
    elif not _is_value(key):
        raise ConfigError(
            f"An agent may not set {key} (got {override.input_line}). Expected a choice of {', '.join(GROUPS)},"
            f" or a value of {', '.join(VALUES)}."
        )


def _elements(override: Override) -> Sequence[str]:
    """Return the names that an override of a group chooses. Patterns choose among existing files, so they are left out."""
    value = override.value()
    if isinstance(value, ChoiceSweep):
        return [element.text if isinstance(element, QuotedString) else str(element) for element in value.list]
    return [] if isinstance(value, Sweep | Glob) else [str(value)]


def _is_value(key: str) -> bool:
    parts = key.split(".")
    return parts[0] in VALUES and not any(part.startswith("_") or part in FORBIDDEN_PARTS for part in parts)


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


def quoted(name: str, value: str) -> str:
    """Return the override `name` with any text as its value. Raise ConfigError if Hydra would not read it as that text."""
    if "${" in value or "'" in value or "\\" in value:
        raise ConfigError(f"An agent may not write ${{, an apostrophe or a backslash in {name} (got {value!r}).")
    return f"{name}='{value}'"
