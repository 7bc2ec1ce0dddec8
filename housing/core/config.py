"""Where the config lies, where results go, and how a function becomes a command."""

from http.client import HTTPException
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate as hydra_instantiate
from omegaconf import DictConfig, OmegaConf

from housing.core.environment import PROJECT, project_home
from housing.core.errors import ConfigError, HousingError

CONF = str(PROJECT / "conf")
SWEEP_RUN = "HOUSING_SWEEP_RUN"  # in the environment of a sweep's jobs: the run that is their parent


OmegaConf.register_new_resolver("home", lambda: str(project_home()), replace=True)


def instantiate(node: DictConfig, *arguments: Any) -> Any:
    """Make what a config node's `_target_` names; an error of ours or of the world outside comes out as itself.

    Raises ConfigError where the target is not there or does not take what the node gives it.
    """
    try:
        return hydra_instantiate(node, *arguments)
    except InstantiationException as error:
        if isinstance(error.__cause__, HousingError | OSError | HTTPException):
            raise error.__cause__ from None
        raise ConfigError(str(error)) from error
