"""TODO docstring."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from housing.bundle.ensemble import ALL
from housing.core.errors import ConfigError


@dataclass(frozen=True)
class EstimatorSpec:
    """One estimator that a config asks for."""

    name: str
    estimator: DictConfig
    features: DictConfig
    nan_handling: str
    region: str
    visible_blocks: list[str] | None  # blocks of the features, by label; all where there is none
    early_stopping_rounds: int | None


def estimator_specs(cfg: DictConfig) -> list[EstimatorSpec]:
    """Give the estimators of a config: its model, or each member of it as often as `copies` says, with seeds of their own."""
    if "members" not in cfg.model:
        return list(_expand_copies(cfg.model.name, {"model": cfg.model}, cfg))
    return [one for name, member in cfg.model.members.items() for one in _expand_copies(str(name), member, cfg)]


def _expand_copies(name: str, member: Mapping[str, Any], cfg: DictConfig) -> Iterator[EstimatorSpec]:
    copies, model = member.get("n_seeds", 1), member["model"]
    if not isinstance(copies, int) or copies < 1:
        raise ConfigError(f"member {name}: n_seeds is {copies}; allowed: whole numbers above 0")
    if copies > 1 and model.estimator.get("random_state") is None:
        raise ConfigError(f"member {name} has {copies} copies and its estimator no random_state to differ in; allowed: n_seeds=1")
    for copy in range(copies):
        estimator: Any = OmegaConf.to_container(model.estimator, resolve=True)
        if copy:
            estimator["random_state"] += copy
        yield EstimatorSpec(
            name if copies == 1 else f"{name} {copy}",
            OmegaConf.create(estimator),
            member.get("features") or cfg.features,
            model.nan_handling,
            member.get("region", ALL),
            member.get("visible_blocks"),
            model.get("early_stopping"),
        )
