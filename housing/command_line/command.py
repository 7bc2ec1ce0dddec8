"""Hydra commands: entry points with help texts and short error messages."""

import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from housing.command_line import help as help_text
from housing.command_line.arguments import Arguments
from housing.command_line.config_errors import (
    COMPOSITION_ERRORS,
    config_errors,
    describe_composition_error,
    describe_unknown_flag,
)
from housing.command_line.project_overrides import add_project_overrides
from housing.core.config import CONF
from housing.core.errors import HousingError
from housing.core.printable import escape_stderr, show

INFORMATION_FLAGS = (*help_text.FLAGS, "--hydra-help", "--cfg", "-c", "--info", "-i")  # print something and do nothing else
RAISE_ERRORS = "HYDRA_FULL_ERROR"  # environment variable: "1" makes Hydra raise errors, where it would print them


def command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], Any]]:
    """Return a decorator that turns a function of a config into a command without arguments.

    A user error ends the command with its message and exit code 1. In a sweep, it is raised, so only its job fails.
    """

    def decorate(function: Callable[[DictConfig], Any]) -> Callable[[], Any]:
        composition = _Composition(config_name)

        def run_function(cfg: DictConfig) -> Any:
            composition.end()
            try:
                with config_errors(cfg):
                    result = function(cfg)
                sys.stdout.flush()
                return result
            except BrokenPipeError:
                _exit_at_closed_pipe()
            except HousingError as error:
                if HydraConfig.get().mode == RunMode.MULTIRUN:
                    raise
                sys.exit(f"error: {error}")

        run_hydra: Callable[[], Any] = hydra.main(version_base="1.3", config_path=CONF, config_name=config_name)(run_function)

        @wraps(function)
        def main() -> Any:
            if any(argument.partition("=")[0] in INFORMATION_FLAGS for argument in sys.argv[1:]):
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end silently if the output is piped into `head`
            if help_text.is_requested(sys.argv[1:]):
                show(help_text.render(config_name))
                return None
            escape_stderr()
            return composition.run(run_hydra)

        return main

    return decorate


class _Composition:
    """The time in which Hydra composes the config of a command. Hydra's own messages are replaced in it."""

    def __init__(self, command_name: str) -> None:
        self.command_name, self.is_active = command_name, False

    def run(self, run_hydra: Callable[[], Any]) -> Any:
        """Start Hydra, and exit with a message if it cannot compose the config."""
        try:
            sys.argv[1:] = add_project_overrides(self.command_name, sys.argv[1:])
        except HousingError as error:
            sys.exit(f"error: {error}")
        arguments = Arguments.parse(self.command_name, sys.argv[1:])
        if arguments.unknown_flags:
            sys.exit(f"error: {describe_unknown_flag(arguments)}")
        sys.argv[1:] = arguments.for_hydra(sys.argv[1:])
        if os.environ.get(RAISE_ERRORS) != "1":  # otherwise the user wants the traceback
            os.environ[RAISE_ERRORS], self.is_active = "1", True
        try:
            return run_hydra()
        except COMPOSITION_ERRORS as error:
            if not self.is_active:
                raise
            sys.exit(f"error: {describe_composition_error(error, arguments)}")
        finally:
            self.end()

    def end(self) -> None:
        """Mark the end: Hydra shortens tracebacks of the command itself, as it usually does."""
        if self.is_active:
            os.environ.pop(RAISE_ERRORS, None)
            self.is_active = False


def _exit_at_closed_pipe() -> NoReturn:
    """Exit without a message, as other programs do if the reader of their output (such as `head`) has ended."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
    sys.exit(128 + signal.SIGPIPE)
