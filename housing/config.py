"""Where the config lies, where results go, and how a function becomes a command."""

import os
import sys
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from housing.errors import ConfigError, HousingError

# Threads that wait for each other must not spin: two fits side by side on two cores took 127 s instead of 14 s.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# MLflow tells its makers what is used, from a thread in each process of a sweep.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

PROJECT = Path(__file__).resolve().parents[1]
CONF = str(PROJECT / "conf")
USER_ERRORS = (HousingError, OmegaConfBaseException)  # what the user can mend; shown without a traceback
SWEEP_RUN = "HOUSING_SWEEP_RUN"  # in the environment of a sweep's jobs: the run that is their parent


def home() -> Path:
    """Give the folder below which data, store and outputs lie: $HOUSING_HOME, or else the project."""
    return Path(os.environ.get("HOUSING_HOME") or PROJECT).absolute()


OmegaConf.register_new_resolver("home", lambda: str(home()), replace=True)


def make(node: DictConfig, *arguments: Any) -> Any:
    """Make what a config node's `_target_` names; an error of ours or of the world outside comes out as itself.

    Raises ConfigError where the target is not there or does not take what the node gives it.
    """
    try:
        return instantiate(node, *arguments)
    except InstantiationException as error:
        if isinstance(error.__cause__, HousingError | OSError | HTTPException):
            raise error.__cause__ from None
        raise ConfigError(str(error)) from error


def command(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], Any]]:
    """Make a command of a function of its config.

    What the user can mend ends the command with its message alone and exit code 1; inside a sweep it is the job that fails.
    """

    def decorate(function: Callable[[DictConfig], Any]) -> Callable[[], Any]:
        def guarded(cfg: DictConfig) -> Any:
            try:
                return function(cfg)
            except USER_ERRORS as error:
                if HydraConfig.get().mode == RunMode.MULTIRUN:
                    raise
                sys.exit(f"error: {error}")

        return hydra.main(version_base="1.3", config_path=CONF, config_name=config_name)(guarded)

    return decorate
