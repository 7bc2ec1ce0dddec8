"""Where the config lies, where results go, and how a function becomes a command."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from housing.errors import HousingError

PROJECT = Path(__file__).resolve().parents[1]
CONF = str(PROJECT / "conf")
SWEEP_RUN = "HOUSING_SWEEP_RUN"  # in the environment of a sweep's jobs: the run that is their parent


def home() -> Path:
    """Give the folder below which data, store and outputs lie: $HOUSING_HOME, or else the project."""
    return Path(os.environ.get("HOUSING_HOME") or PROJECT)


OmegaConf.register_new_resolver("home", lambda: str(home()), replace=True)


def command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], Any]]:
    """Make a command of a function of its config.

    A HousingError ends the command with its message alone and exit code 1; inside a sweep it is the job that fails.
    """

    def decorate(function: Callable[[DictConfig], Any]) -> Callable[[], Any]:
        def guarded(cfg: DictConfig) -> Any:
            try:
                return function(cfg)
            except HousingError as error:
                if HydraConfig.get().mode == RunMode.MULTIRUN:
                    raise
                sys.exit(f"error: {error}")

        return hydra.main(version_base="1.3", config_path=CONF, config_name=config_name)(guarded)

    return decorate
