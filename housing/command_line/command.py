"""Hydra commands: entry points with help texts and short error messages."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial, wraps
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from housing.command_line import help as help_text
from housing.command_line import output
from housing.command_line.arguments import Arguments
from housing.command_line.config_errors import (
    COMPOSITION_ERRORS,
    config_errors,
    describe_composition_error,
    describe_unknown_flag,
)
from housing.command_line.project_overrides import add_project_overrides
from housing.core.config import CONF
from housing.core.errors import ConfigError, HousingError
from housing.core.files import write_error
from housing.core.own_project import make_own_modules_importable
from housing.core.printable import escape_stderr, show

INFORMATION_FLAGS = (*help_text.FLAGS, "--hydra-help", "--cfg", "-c", "--info", "-i")  # print something and do nothing else
RAISE_ERRORS = "HYDRA_FULL_ERROR"  # environment variable: "1" makes Hydra raise errors, where it would print them


def command(
    config_name: str, enclose: Callable[[Callable[[], Any]], Any] | None = None
) -> Callable[[Callable[[DictConfig], output.Result]], Callable[[], Any]]:
    """Return a decorator that turns a function of a config into a command without arguments.

    A user error ends the command with its message and exit code 1. In a sweep, it is raised, so only its job fails. `enclose`
    runs the command, with work before and after it.
    """

    def decorate(function: Callable[[DictConfig], output.Result]) -> Callable[[], Any]:
        composition = _Composition(config_name)

        def run_function(cfg: DictConfig) -> Any:
            composition.end()
            is_job = HydraConfig.get().mode == RunMode.MULTIRUN
            try:
                with config_errors(cfg):
                    result = function(cfg)
                sys.stdout.flush()
            except BrokenPipeError:
                _exit_at_closed_pipe()
            except Exception as error:  # pylint: disable=broad-exception-caught  # raised again if it is a defect
                if is_job:
                    raise
                output.set_error(error)
                if not isinstance(error, HousingError):
                    raise
                sys.exit(f"error: {error}")
            if not is_job:
                output.set_result(result.document)
                if result.exit_code:
                    sys.exit(result.exit_code)
            return result.objective

        run_hydra: Callable[[], Any] = hydra.main(version_base="1.3", config_path=CONF, config_name=config_name)(run_function)

        @wraps(function)
        def main() -> Any:
            is_information = any(argument.partition("=")[0] in INFORMATION_FLAGS for argument in sys.argv[1:])
            if is_information:
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end silently if the output is piped into `head`
            if help_text.is_requested(sys.argv[1:]):
                show(help_text.render(config_name))
                return None
            escape_stderr()
            is_json, sys.argv[1:] = output.take_format(sys.argv[1:])
            run = partial(composition.run, run_hydra)
            with output.one_document(config_name) if is_json and not is_information else nullcontext():
                return run() if enclose is None else enclose(run)

        return main

    return decorate


class _Composition:
    """The time in which Hydra composes the config of a command. Hydra's own messages are replaced in it."""

    def __init__(self, command_name: str) -> None:
        self.command_name, self.is_active = command_name, False

    def run(self, run_hydra: Callable[[], Any]) -> Any:
        """Start Hydra, and exit with a message if it cannot compose the config."""
        make_own_modules_importable()  # Hydra looks for plugins along Python's path
        try:
            sys.argv[1:] = add_project_overrides(self.command_name, sys.argv[1:])
        except HousingError as error:
            sys.exit(f"error: {error}")
        arguments = Arguments.parse(self.command_name, sys.argv[1:])
        if arguments.unknown_flags:
            _refuse(describe_unknown_flag(arguments))
        sys.argv[1:] = arguments.for_hydra(sys.argv[1:])
        if os.environ.get(RAISE_ERRORS) != "1":  # otherwise the user wants the traceback
            os.environ[RAISE_ERRORS], self.is_active = "1", True
        try:
            return run_hydra()
        except COMPOSITION_ERRORS as error:
            if not self.is_active:
                raise
            _refuse(describe_composition_error(error, arguments))
        except HousingError as error:  # of a launcher; one of the command itself has ended the process before
            output.set_error(error)
            sys.exit(f"error: {error}")
        except OSError as error:  # of Hydra, which makes the folder of a run and its log file
            if not self.is_active or error.filename is None:
                raise
            _refuse(str(write_error(Path(error.filename), error)))
        finally:
            self.end()

    def end(self) -> None:
        """Mark the end: Hydra shortens tracebacks of the command itself, as it usually does."""
        if self.is_active:
            os.environ.pop(RAISE_ERRORS, None)
            self.is_active = False


def _refuse(message: str) -> NoReturn:
    """Exit with the message for a wrong command line or config."""
    output.set_error(ConfigError(message))
    sys.exit(f"error: {message}")


def _exit_at_closed_pipe() -> NoReturn:
    """Exit without a message, as other programs do if the reader of their output (such as `head`) has ended."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
    sys.exit(128 + signal.SIGPIPE)
