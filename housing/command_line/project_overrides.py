"""Overrides of a project of one's own: its file housing.yaml names those that belong to every command line."""

from collections.abc import Sequence
from pathlib import Path

from housing.command_line import help as help_text
from housing.command_line.arguments import Arguments
from housing.core.config import read_yaml
from housing.core.environment import MARKER, own_project
from housing.core.errors import ConfigError
from housing.core.files import short_path

KEY = "overrides"


def add_project_overrides(command: str, words: Sequence[str]) -> list[str]:
    """Return the words of a command line with the project's overrides, as far as the command accepts them.

    An override of the command line replaces the project's override of the same key.

    Raises
    ------
    ConfigError
        If housing.yaml is wrong, or if no command accepts an override in it.
    """
    project = own_project()
    if project is None:
        return list(words)
    given = Arguments.parse(command, words).overrides
    keys = {_key(word) for word in given}
    added = [word for word in _read(project / MARKER) if _key(word) not in keys and _accepts(command, word)]
    position = words.index(given[0]) if given else len(words)  # Hydra takes no flag between overrides
    return [*words[:position], *added, *words[position:]]


def _read(path: Path) -> list[str]:
    content = read_yaml(path)
    if content is None:  # no more than comments
        return []
    overrides = content.get(KEY, []) if isinstance(content, dict) and set(content) <= {KEY} else None
    if not isinstance(overrides, list) or not all(isinstance(word, str) and "=" in word for word in overrides):
        raise ConfigError(f"{short_path(path)} must have the key {KEY} alone, with a list such as [data=rentals].")
    for word in overrides:
        if not any(_accepts(command, word) for command in help_text.command_names()):
            raise ConfigError(f"No command accepts {word}, an override in {short_path(path)}. Expected one such as data=rentals.")
    return overrides


def _accepts(command: str, word: str) -> bool:
    keys = help_text.keys(command)
    branches = {key.partition(".")[0] for key in keys}
    return _key(word) in keys or _key(word).partition(".")[0] in branches


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")
