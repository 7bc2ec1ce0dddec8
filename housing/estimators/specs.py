"""Estimator specifications: the estimators of a model, with their features and settings, as the config declares them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf

from housing.bundle.ensemble import ALL
from housing.core.config import instantiate
from housing.core.errors import ConfigError
from housing.core.validators import POSITIVE, integer, optional
from housing.estimators.arguments import check_estimator


@dataclass(frozen=True)
class EstimatorSpec:
    """One estimator to fit.

    Attributes
    ----------
    create_estimator
        Returns a new estimator with scikit-learn's interface.
    features
        Configuration of its features, as `Features` takes it.
    nan_handling
        "native" or "impute".
    region
        Where the estimator counts: near the training rows, far from them, or everywhere.
    visible_blocks
        Labels of the feature blocks that the estimator sees, or None for all.
    weight
        How much the estimator counts in the mean of the members.
    max_rows
        The estimator is left out of fits on more rows, or None for no limit.
    """

    name: str
    create_estimator: Callable[[], Any]
    features: Mapping[str, Any]
    nan_handling: str = "native"
    region: str = ALL
    visible_blocks: list[str] | None = None
    early_stopping_rounds: int | None = None
    weight: float = 1.0
    max_rows: int | None = None

    @property
    def features_key(self) -> str:
        """A text that is equal for estimators that can share fitted features."""
        return f"{self.features} {self.nan_handling}"


def estimator_specs(cfg: DictConfig) -> list[EstimatorSpec]:
    """Return the estimators of a config: the model itself, or `n_seeds` copies of each of its members.

    Raises
    ------
    TargetError
        If an estimator cannot be created from its config.
    """
    if "members" not in cfg.model:
        check_estimator("model.estimator", cfg.model.estimator)
        return list(_expand_seeds(cfg.model.name, {"model": cfg.model}, cfg.features))
    for name, member in cfg.model.members.items():
        if member.model.get("teacher") is not None:
            raise ConfigError(
                f"model.members.{name}.model must have no teacher: only a whole model is distilled (model=distilled)."
            )
        check_estimator(f"model.members.{name}.model.estimator", member.model.estimator)
    return [spec for name, member in cfg.model.members.items() for spec in _expand_seeds(str(name), member, cfg.features)]


def _expand_seeds(name: str, member: Mapping[str, Any], default_features: DictConfig) -> Iterator[EstimatorSpec]:
    """Yield the copies of a member, which differ in `random_state` alone."""
    n_seeds, model = member.get("n_seeds", 1), member["model"]
    if not isinstance(n_seeds, int) or n_seeds < 1:
        raise ConfigError(f"model.members.{name}.n_seeds must be a whole number above 0 (got {n_seeds})")
    if n_seeds > 1 and model.estimator.get("random_state") is None:
        raise ConfigError(f"model.members.{name}.n_seeds must be 1 (got {n_seeds}): the estimator has no random_state to vary")
    weight = member.get("weight", 1.0)
    POSITIVE.validate(f"model.members.{name}.weight", weight)
    max_rows = member.get("max_rows")
    optional(integer(1)).validate(f"model.members.{name}.max_rows", max_rows)
    features: Any = OmegaConf.to_container(member.get("features") or default_features, resolve=True)
    for index in range(n_seeds):
        estimator: Any = OmegaConf.to_container(model.estimator, resolve=True)
        if index:
            estimator["random_state"] += index
        yield EstimatorSpec(
            name if n_seeds == 1 else f"{name} {index}",
            partial(instantiate, OmegaConf.create(estimator)),
            features,
            model.nan_handling,
            member.get("region", ALL),
            member.get("visible_blocks"),
            model.get("early_stopping"),
            weight,
            max_rows,
        )
