"""Composition of a command's config in a Python process that is not that command."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from housing.command_line import help as help_text
from housing.command_line.arguments import Arguments, search_path_override
from housing.command_line.config_errors import COMPOSITION_ERRORS, config_errors, describe_composition_error
from housing.command_line.project_overrides import accepts, add_project_overrides
from housing.core.config import CONF
from housing.core.environment import HOME_VARIABLE, own_config_folder
from housing.core.errors import ConfigError

TERMINAL_VARIABLES = ("CLICOLOR_FORCE", "FORCE_COLOR")  # a notebook's kernel sets them, and Rich takes a pipe for a terminal then


@dataclass(frozen=True)
class Context:
    """The context of a project's commands: their folder, config files and common overrides.

    Attributes
    ----------
    folder
        The folder of data, store and outputs.
    config_dir
        A folder with config files of one's own, as --config-dir names it, or None.
    overrides
        Overrides of every command that accepts them, such as "data=rentals".
    """

    folder: Path
    config_dir: Path | None
    overrides: tuple[str, ...]

    def words(self, command: str, overrides: Sequence[str]) -> list[str]:
        """Return the command line of a command, without its name."""
        flags = [] if self.config_dir is None else [f"--config-dir={self.config_dir}"]
        return [*flags, *self.common_overrides(command), *overrides]

    def common_overrides(self, command: str) -> list[str]:
        """Return the common overrides without those that other commands accept, and this one does not.

        An override that no command accepts stays, so that each command refuses it with a hint.
        """
        return [word for word in self.overrides if accepts(command, word) or not _is_known(word)]

    @property
    def config_folder(self) -> Path:
        """The folder for config files of one's own: config_dir, or that of the project of one's own, or the package's.

        Read it while a config is composed: the project's folder is the home then.
        """
        return self.config_dir or own_config_folder() or Path(CONF)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that runs a command, whose output is no terminal, although a notebook says so."""
        inherited = {name: value for name, value in os.environ.items() if name not in TERMINAL_VARIABLES}
        return {**inherited, HOME_VARIABLE: str(self.folder)}

    @contextmanager
    def composed(self, command: str, *overrides: str) -> Iterator[DictConfig]:
        """Compose the config of a command, which works in the project's folder until the block ends.

        Raises
        ------
        ConfigError
            If an override or a config file is wrong, with the message of the command.
        """
        with self._as_home():
            cfg = self._compose(command, overrides)
            HydraConfig.instance().set_config(cfg)
            try:
                task = cfg.copy()
                with open_dict(task):
                    del task["hydra"]
                with config_errors(task):
                    yield task
            finally:
                HydraConfig.instance().cfg = None

    def _compose(self, command: str, overrides: Sequence[str]) -> DictConfig:
        arguments = Arguments.parse(command, add_project_overrides(command, self.words(command, overrides)))
        flags = [word for word in (*self.overrides, *overrides) if word.startswith("-")]
        if flags:
            raise ConfigError(f"Expected overrides such as model=xgboost, without flags (got {flags[0]}).")
        if self.config_dir is not None and not self.config_dir.is_dir():
            raise ConfigError(
                f"config_dir {self.config_dir} is no folder. Expected a folder with config files, such as data/NAME.yaml."
            )
        search_path = [] if self.config_dir is None else [search_path_override(self.config_dir)]
        try:
            with initialize_config_dir(CONF, version_base="1.3"):
                return compose(command, [*search_path, *arguments.overrides], return_hydra_config=True)
        except COMPOSITION_ERRORS as error:
            raise ConfigError(describe_composition_error(error, arguments)) from error

    @contextmanager
    def _as_home(self) -> Iterator[None]:
        """Make the folder the home of this process, and afterwards what was the home before."""
        before = os.environ.get(HOME_VARIABLE)
        os.environ[HOME_VARIABLE] = str(self.folder)
        try:
            yield
        finally:
            os.environ.pop(HOME_VARIABLE)
            if before is not None:
                os.environ[HOME_VARIABLE] = before


def _is_known(word: str) -> bool:
    return any(accepts(command, word) for command in help_text.command_names())
