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
from omegaconf.errors import OmegaConfBaseException

from housing.command_line import help as help_text
from housing.core.config import CONF
from housing.core.errors import HousingError
from housing.core.printable import escape_stderr, show

INFORMATION_FLAGS = (*help_text.FLAGS, "--hydra-help", "--cfg", "-c", "--info", "-i")  # print something and do nothing else
USER_ERRORS = (HousingError, OmegaConfBaseException)  # the user can fix these, so they are shown without a traceback


def command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], Any]]:
    """Return a decorator that turns a function of a config into a command without arguments.

    A user error ends the command with its message and exit code 1. In a sweep, it is raised, so only its job fails.
    """

    def decorate(function: Callable[[DictConfig], Any]) -> Callable[[], Any]:
        def run_function(cfg: DictConfig) -> Any:
            try:
                result = function(cfg)
                sys.stdout.flush()
                return result
            except BrokenPipeError:
                _exit_at_closed_pipe()
            except USER_ERRORS as error:
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
            return run_hydra()

        return main

    return decorate


def _exit_at_closed_pipe() -> NoReturn:
    """Exit without a message, as other programs do if the reader of their output (such as `head`) has ended."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
    sys.exit(128 + signal.SIGPIPE)
