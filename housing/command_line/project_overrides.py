"""Overrides of a project of one's own: its file housing.yaml names those that belong to every command line."""

from collections.abc import Sequence

from housing.command_line import help as help_text
from housing.command_line.arguments import Arguments
from housing.core.environment import MARKER
from housing.core.errors import ConfigError
from housing.core.own_project import ProjectFile


def add_project_overrides(command: str, words: Sequence[str]) -> list[str]:
    """Return the words of a command line with the project's overrides, as far as the command accepts them.

    An override of the command line replaces the project's override of the same key.

    Raises
    ------
    ConfigError
        If housing.yaml is wrong, or if no command accepts an override in it.
    """
    given = Arguments.parse(command, words).overrides
    keys = {_key(word) for word in given}
    added = [word for word in _read() if _key(word) not in keys and accepts(command, word)]
    position = list(words).index(given[0]) if given else len(words)  # Hydra takes no flag between overrides
    return [*words[:position], *added, *words[position:]]


def _read() -> list[str]:
    overrides = ProjectFile.read().overrides
    for word in overrides:
        if not any(accepts(command, word) for command in help_text.command_names()):
            raise ConfigError(f"No command accepts {word}, an override in {MARKER}. Expected one such as data=rentals.")
    return overrides


def accepts(command: str, word: str) -> bool:
    """Return whether a command has the option or the group that an override sets."""
    keys = help_text.keys(command)
    branches = {key.partition(".")[0] for key in keys}
    return _key(word) in keys or _key(word).partition(".")[0] in branches


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")
