"""Check of the estimators of a config before anything is fitted: the library, the names of arguments, and their values."""

import difflib
import inspect
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf

from housing.core.config import instantiate
from housing.core.environment import OPTIONAL_LIBRARIES
from housing.core.errors import TargetError

SIMILAR = 0.85  # an unknown argument this similar to a known one is a typing error, even if the class passes others on


def check_estimator(path: str, node: DictConfig) -> None:
    """Check an estimator's config at the key `path`. Nothing is fitted.

    Raises
    ------
    TargetError
        If a library is not installed, a target does not exist or has no such argument, or rejects a value.
    """
    for key, target, arguments in _targets(path, node):
        _require_library(key, target)
        _check_names(key, target, arguments)
    _check_values(path, instantiate(node))


def missing_library(node: DictConfig) -> str | None:
    """Return the library that an estimator's config needs and that is not installed, or None."""
    libraries = (target.split(".", maxsplit=1)[0] for _, target, _ in _targets("", node))
    return next((library for library in libraries if find_spec(library) is None), None)


def _targets(path: str, node: Any) -> Iterator[tuple[str, str, list[str]]]:
    """Yield the path, the target and the names of the arguments of each node with a `_target_`."""
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield path, str(node["_target_"]), [str(name) for name in node if not str(name).startswith("_")]
        for name in node:
            if not OmegaConf.is_missing(node, name):
                yield from _targets(f"{path}.{name!s}", node[name])
    elif isinstance(node, ListConfig):
        for index, item in enumerate(node):
            yield from _targets(f"{path}.{index}", item)


def _require_library(path: str, target: str) -> None:
    library = target.split(".", maxsplit=1)[0]
    if find_spec(library) is None:
        package = "'housing[boosters]'" if library in OPTIONAL_LIBRARIES else library
        raise TargetError(f"{path}={target} needs the package {library}. Install it: pip install {package}")


def _check_names(path: str, target: str, arguments: list[str]) -> None:
    known, passes_others_on = _known_arguments(target)
    for name in arguments:
        cutoff = SIMILAR if passes_others_on else 0.6
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
        if name in known or (passes_others_on and not nearest):
            continue
        hint = f"Did you mean {nearest[0]}?" if nearest else f"Arguments: {', '.join(known)}."
        raise TargetError(f"{path}.{name}: {target.rpartition('.')[2]} has no argument {name}. {hint}")


def _known_arguments(target: str) -> tuple[list[str], bool]:
    """Return the names of a target's arguments, and whether it passes other names on to its library."""
    try:
        callable_object = get_object(target)
        parameters = inspect.signature(callable_object).parameters.values()
    except Exception:  # `instantiate` reports it  # pylint: disable=broad-exception-caught
        return [], True
    known = [parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    passes_others_on = len(known) < len(parameters)
    if passes_others_on and hasattr(callable_object, "get_params"):
        known += [name for name in callable_object().get_params() if name not in known]
    return known, passes_others_on


def _check_values(path: str, estimator: Any) -> None:
    """Check the values of scikit-learn's estimators, and of the steps of a pipeline, as `fit` does."""
    for name, part in (("", estimator), *getattr(estimator, "steps", ())):
        if not hasattr(part, "_parameter_constraints"):
            continue
        try:
            part._validate_params()  # pylint: disable=protected-access
        except ValueError as error:
            raise TargetError(f"{path}{'.' if name else ''}{name}: {' '.join(str(error).split())}") from error
