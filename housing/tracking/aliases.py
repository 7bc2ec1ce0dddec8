"""The aliases that a project declares, so that a misspelled one is refused instead of created."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from housing.core.errors import ConfigError


@dataclass(frozen=True)
class VersionAtAlias:
    """The version of a registered model at an alias; None if the alias is unset."""

    registered_model: str
    alias: str
    version: str | None


def require_declared_alias(name: str, aliases: Mapping[str, str | None], key: str = "alias") -> None:
    """Raise ConfigError if an alias is not declared in the config."""
    if name in aliases:
        return
    nearest = difflib.get_close_matches(name, aliases, n=1)
    hint = f" Did you mean {key}={nearest[0]}?" if nearest else ""
    raise ConfigError(
        f"{key} must be one of {', '.join(aliases)} (got {name!r}).{hint}"
        " To declare another alias, add it to aliases in conf/serve.yaml."
    )
