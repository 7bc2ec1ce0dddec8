"""TODO docstring."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from housing.core import help as help_text
from housing.core.config import CONF
from housing.core.errors import HousingError

USER_ERRORS = (HousingError, OmegaConfBaseException)  # what the user can mend; shown without a traceback


def command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], Any]]:
    """Make a command of a function of its config.

    What the user can mend ends the command with its message alone and exit code 1; inside a sweep it is the job that fails.
    """

    def decorate(function: Callable[[DictConfig], Any]) -> Callable[[], Any]:
        def wrapped(cfg: DictConfig) -> Any:
            try:
                return function(cfg)
            except USER_ERRORS as error:
                if HydraConfig.get().mode == RunMode.MULTIRUN:
                    raise
                sys.exit(f"error: {error}")

        run: Callable[[], Any] = hydra.main(version_base="1.3", config_path=CONF, config_name=config_name)(wrapped)

        @wraps(function)
        def main() -> Any:
            if help_text.is_requested(sys.argv[1:]):
                print(help_text.render(config_name))
                return None
            return run()

        return main

    return decorate
