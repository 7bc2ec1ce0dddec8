"""Command line of a Hydra command: its overrides, its config folders, and the keys that it could set."""

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from housing.command_line import help as help_text
from housing.core.config import CONF
from housing.core.environment import own_config_folder

# Hydra's flags, as --hydra-help prints them, without and with a value.
SWITCHES = (
    ("--help", "-h"),
    ("--hydra-help",),
    ("--version",),
    ("--resolve",),
    ("--run", "-r"),
    ("--multirun", "-m"),
    ("--shell-completion", "-sc"),
)
FLAGS_WITH_VALUE = (
    ("--cfg", "-c"),
    ("--package", "-p"),
    ("--config-path", "-cp"),
    ("--config-name", "-cn"),
    ("--config-dir", "-cd"),
    ("--experimental-rerun",),
    ("--info", "-i"),
)
MAX_COMPOSITIONS = 8  # combinations of swept options whose keys are collected for a hint


@dataclass(frozen=True)
class Arguments:
    """The words behind the name of a command.

    Attributes
    ----------
    command
        The name of the command, such as "train".
    overrides
        Words that are no flags, which should be NAME=VALUE.
    unknown_flags
        Words that start with a dash and are none of Hydra's flags.
    config_dir
        The value of --config-dir, or None.
    is_sweep
        Whether --multirun is there.
    """

    command: str
    overrides: list[str]
    unknown_flags: list[str]
    config_dir: str | None
    is_sweep: bool

    @classmethod
    def parse(cls, command: str, words: Sequence[str]) -> "Arguments":
        """Sort the words of a command line."""
        parser = argparse.ArgumentParser(add_help=False)
        for flags in SWITCHES:
            parser.add_argument(*flags, action="store_true")
        for flags in FLAGS_WITH_VALUE:
            parser.add_argument(*flags, nargs="?")
        parsed, rest = parser.parse_known_args(list(words))
        unknown_flags = [word for word in rest if word.startswith("-")]
        overrides = [word for word in rest if not word.startswith("-")]
        return cls(command, overrides, unknown_flags, parsed.config_dir, parsed.multirun)

    @property
    def config_folders(self) -> list[Path]:
        """The folders of config files, in the order in which Hydra searches them."""
        return [Path(folder) for folder in (own_config_folder(), CONF, self.config_dir) if folder is not None]

    def for_hydra(self, words: Sequence[str]) -> list[str]:
        """Return the words as Hydra needs them: in a sweep over a group's options, a value of the group is a choice of one.

        Hydra sets other values before it sweeps, in the group's default option, which may lack the key.
        """
        swept = [lines[0].partition("=")[0] for lines in self.option_lines() if len(lines) > 1 and self.is_sweep]
        return [_as_choice(word) if word.startswith(tuple(f"{group}." for group in swept)) else word for word in words]

    def choices(self, group: str) -> list[str]:
        """Return the options of a config group."""
        return sorted({file.stem for folder in self.config_folders for file in (folder / group).glob("*.yaml")})

    def chosen_files(self) -> list[Path]:
        """Return the files of the options that the command line chooses."""
        chosen = [line.split("=", 1) for lines in self.option_lines() for line in lines]
        files = [folder / group / f"{choice}.yaml" for group, choice in chosen for folder in self.config_folders]
        return [file for file in dict.fromkeys(files) if file.is_file()]

    def keys(self) -> list[str]:
        """Return the keys and groups that the command line could set, with the options that it chooses."""
        keys = dict.fromkeys(help_text.keys(self.command))
        search_path = [] if self.config_dir is None else [search_path_override(Path(self.config_dir))]
        for options in islice(product(*self.option_lines()), MAX_COMPOSITIONS):
            try:
                with initialize_config_dir(CONF, version_base="1.3"):
                    keys |= dict.fromkeys(_paths(compose(self.command, [*search_path, *options])))
            except (HydraException, ValueError):  # a second mistake: without these keys, there are fewer hints
                continue
        return list(keys)

    def option_lines(self) -> list[list[str]]:
        """Return, for each config group that the command line sets, its choices as overrides."""
        lines = []
        for override in self._parsed():
            group = override.key_or_group
            if (
                override.package is None
                and not override.is_delete()
                and any((folder / group).is_dir() for folder in self.config_folders)
            ):
                choices = override.sweep_string_iterator() if override.is_choice_sweep() else [override.get_value_string()]
                lines.append([f"{group}={choice!s}" for choice in choices])
        return lines

    def _parsed(self) -> Iterator[Override]:
        parser = OverridesParser.create()
        for word in self.overrides:
            try:
                yield parser.parse_override(word)
            except HydraException:
                continue


def search_path_override(folder: Path) -> str:
    """Return the override that makes Hydra look for config files in a folder, whatever characters its path has."""
    path = str(folder.absolute()).replace('"', '\\"')
    return f'hydra.searchpath=["file://{path}"]'


def searched_folder(override: str) -> Path | None:
    """Return the folder of an override that `search_path_override` returns, or None for another one."""
    match = re.fullmatch(r'hydra\.searchpath=\["file://((?:[^"\\]|\\"|\\(?!"))*)"\]', override)
    return None if match is None else Path(match[1].replace('\\"', '"'))


def _as_choice(word: str) -> str:
    """Return a plain override of a value as a sweep over that value alone, and any other word as it is."""
    name, _, value = word.partition("=")
    try:
        is_sweep = OverridesParser.create().parse_override(word).is_sweep_override()
    except HydraException:
        return word
    return word if is_sweep or not value else f"{name}=choice({value})"


def _paths(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all keys of a config."""
    for name in map(str, node):
        path = f"{prefix}{name}"
        yield path
        if not OmegaConf.is_missing(node, name) and not OmegaConf.is_interpolation(node, name):
            child = node[name]
            if isinstance(child, DictConfig):
                yield from _paths(child, f"{path}.")
