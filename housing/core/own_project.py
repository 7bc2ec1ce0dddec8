"""A project of one's own: what its file housing.yaml declares, and its modules."""

import importlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from housing.core.environment import MARKER, own_project
from housing.core.errors import ConfigError, TargetError
from housing.core.files import short_path

EXPECTED = (
    "Expected overrides: a list such as [data=rentals], and feature_blocks: names with MODULE.CLASS, such as {log: own.Log}."
)


@dataclass(frozen=True)
class ProjectFile:
    """The content of housing.yaml.

    Attributes
    ----------
    overrides
        Overrides of every command.
    feature_blocks
        MODULE.CLASS of each block of features, by name. A bundle can name these and the package's blocks, and no other class.
    """

    overrides: list[str] = field(default_factory=list)
    feature_blocks: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls) -> "ProjectFile":
        """Read the file of the present project. Outside of a project, nothing is declared.

        Raises
        ------
        ConfigError
            If the file has other content.
        """
        project = own_project()
        if project is None:
            return cls()
        try:
            content = yaml.safe_load((project / MARKER).read_text(encoding="utf-8")) or {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ConfigError(f"Could not read {short_path(project / MARKER)}: {' '.join(str(error).split())}") from error
        if not isinstance(content, dict) or not set(content) <= {"overrides", "feature_blocks"} or not _is_valid(content):
            raise ConfigError(f"{short_path(project / MARKER)} is wrong. {EXPECTED}")
        return cls(**content)


def _is_valid(content: dict[str, Any]) -> bool:
    overrides, blocks = content.get("overrides", []), content.get("feature_blocks", {})
    return (
        isinstance(overrides, list)
        and all(isinstance(word, str) and "=" in word for word in overrides)
        and isinstance(blocks, dict)
        and all(isinstance(name, str) and isinstance(path, str) and "." in path for name, path in blocks.items())
    )


def make_own_modules_importable() -> Path | None:
    """Put the folder of the project of one's own on Python's path, and return it; None outside of a project."""
    project = own_project()
    if project is not None and str(project) not in sys.path:
        sys.path.insert(0, str(project))
    return project


def import_own_block(name: str) -> Any:
    """Return the class of a feature block that housing.yaml declares, or None if it declares no such block.

    Raises
    ------
    TargetError
        If the class cannot be imported.
    """
    path = ProjectFile.read().feature_blocks.get(name)
    if path is None:
        return None
    make_own_modules_importable()
    module, _, attribute = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise TargetError(f"Could not import {path}, the feature block {name} of {MARKER}: {error}") from error
