"""Hydra configuration: its folder, its resolver of the home folder, and instantiation of nodes."""

from http.client import HTTPException
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate as hydra_instantiate
from omegaconf import DictConfig, OmegaConf

from housing.core.environment import PROJECT, project_home
from housing.core.errors import HousingError, TargetError

CONF = str(PROJECT / "conf")
SWEEP_RUN = "HOUSING_SWEEP_RUN"  # environment variable of a sweep's jobs: the ID of their parent run

OmegaConf.register_new_resolver("home", lambda: str(project_home()), replace=True)


def instantiate(node: DictConfig, *arguments: Any) -> Any:
    """Instantiate the class, or call the function, that the node's `_target_` names.

    Raises
    ------
    TargetError
        If the target does not exist or does not accept the arguments of the node.
    HousingError, OSError, HTTPException
        As raised by the target itself, without Hydra's wrapper.
    """
    try:
        return hydra_instantiate(node, *arguments)
    except InstantiationException as error:
        if isinstance(error.__cause__, HousingError | OSError | HTTPException):
            raise error.__cause__ from None
        raise TargetError(str(error)) from error
