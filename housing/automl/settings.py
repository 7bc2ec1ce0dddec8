"""Settings of a search: the time budget, the limits of the ensemble, and the candidates in the order of their fits."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from omegaconf import DictConfig, OmegaConf

from housing.core.errors import ConfigError
from housing.core.validators import AT_LEAST_ONE, POSITIVE, integer
from housing.data.table import Table
from housing.estimators.arguments import check_estimator, missing_library

# Keys of conf/experiment/auto.yaml that direct the search. The run of the ensemble has no use for them.
SEARCH_KEYS = (
    "minutes",
    "max_row_microseconds",
    "max_bundle_megabytes",
    "max_candidates",
    "max_relative_rmse",
    "folds",
    "candidates",
)
MEGABYTE = 1e6


@dataclass(frozen=True)
class Candidate:
    """A model that may become a member of the ensemble.

    Attributes
    ----------
    model
        Its node of the config, as a file of `conf/model` declares it.
    features
        Its node of the features, or None for those of the run.
    needs_coordinates
        Whether the candidate is for tables with coordinates only.
    max_rows
        The largest number of training and validation rows, or None: the time of a fit or of a prediction grows with the rows.
    space
        Lowest and highest values of arguments of the estimator, from which more candidates are drawn.
    """

    name: str
    model: dict[str, Any]
    features: dict[str, Any] | None
    needs_coordinates: bool
    max_rows: int | None
    space: Mapping[str, tuple[float, float]]

    def draw(self, number: int, seed: int) -> "Candidate":
        """Return the variation of this number: arguments that are uniform between their bounds, or log-uniform for fractions."""
        random = np.random.default_rng([seed, number])
        drawn = {argument: _draw_value(random, *bounds) for argument, bounds in self.space.items()}
        model = {**self.model, "estimator": {**self.model["estimator"], **drawn}}
        return replace(self, name=f"{self.name}_{number}", model=model)

    def config(self, base: Mapping[str, Any], transform: str) -> DictConfig:
        """Return the config of a run of the candidate, from the config that all candidates share."""
        features = base["features"] if self.features is None else self.features
        target = {**base["target"], "transform": transform}
        return OmegaConf.create({**base, "model": self.model, "features": features, "target": target})

    def suits(self, table: Table, n_rows: int) -> bool:
        """Return whether the candidate is for this table, and for this number of training and validation rows."""
        has_coordinates = table.schema.coordinates() is not None
        return (has_coordinates or not self.needs_coordinates) and (self.max_rows is None or n_rows <= self.max_rows)


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search.

    Attributes
    ----------
    seconds
        Time for the fits of the candidates and of the ensemble.
    max_candidates
        Largest number of candidates, with those that are drawn.
    max_row_microseconds, max_bytes
        Limits of the ensemble: the time to predict one row, and the size of its models.
    max_relative_rmse
        A candidate is left out if its own RMSE is above this multiple of the lowest: on unusual rows it may err without limit.
    base
        The resolved config without the keys of the search. A candidate changes its model, its features and its transform.
    missing
        Names of the libraries that candidates need and that are not installed.
    """

    seconds: float
    max_candidates: int
    max_row_microseconds: float
    max_bytes: float
    max_relative_rmse: float
    n_folds: int
    candidates: tuple[Candidate, ...]
    base: dict[str, Any]
    missing: tuple[str, ...]

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Self:
        """Read the settings from a config with `experiment=auto`.

        Raises
        ------
        ConfigError
            If a value is out of range, or if no candidate can be fitted.
        """
        for name in ("minutes", "max_row_microseconds", "max_bundle_megabytes"):
            POSITIVE.validate(name, cfg[name])
        AT_LEAST_ONE.validate("max_relative_rmse", cfg.max_relative_rmse)
        integer(2).validate("folds", cfg.folds)
        integer(1).validate("max_candidates", cfg.max_candidates)
        declared = {str(name): node for name, node in cfg.candidates.items() if node is not None}
        missing = {name: missing_library(node.model.estimator) for name, node in declared.items()}
        candidates = tuple(_candidates({name: node for name, node in declared.items() if missing[name] is None}))
        if not candidates:
            raise ConfigError(
                "experiment=auto needs a candidate whose library is installed: see conf/experiment/auto.yaml (got none)."
            )
        base: Any = OmegaConf.to_container(cfg, resolve=True)
        for key in SEARCH_KEYS:
            del base[key]
        return cls(
            seconds=60.0 * cfg.minutes,
            max_candidates=cfg.max_candidates,
            max_row_microseconds=cfg.max_row_microseconds,
            max_bytes=MEGABYTE * cfg.max_bundle_megabytes,
            max_relative_rmse=cfg.max_relative_rmse,
            n_folds=cfg.folds,
            candidates=candidates,
            base=base,
            missing=tuple(sorted({library for library in missing.values() if library is not None})),
        )


def _candidates(declared: dict[str, DictConfig]) -> Iterator[Candidate]:
    for name, node in declared.items():
        check_estimator(f"candidates.{name}.model.estimator", node.model.estimator)
        resolved: Any = OmegaConf.to_container(node, resolve=True)
        yield Candidate(
            name,
            resolved["model"],
            resolved.get("features"),
            resolved.get("needs_coordinates", False),
            resolved.get("max_rows"),
            {
                argument: _bounds(f"candidates.{name}.space.{argument}", values)
                for argument, values in resolved.get("space", {}).items()
            },
        )


def _bounds(key: str, values: Any) -> tuple[float, float]:
    if not isinstance(values, list) or len(values) != 2 or not all(map(POSITIVE.is_valid, values)) or values[0] > values[1]:
        raise ConfigError(
            f"{key} must be the lowest and the highest value, two numbers above 0 such as [0.01, 0.1] (got {values})."
        )
    return values[0], values[1]


def _draw_value(random: np.random.Generator, low: float, high: float) -> float:
    """Return a whole number if both bounds are whole numbers, else one with three significant digits."""
    if isinstance(low, int) and isinstance(high, int):
        return int(random.integers(low, high, endpoint=True))
    return float(f"{np.exp(random.uniform(np.log(low), np.log(high))):.3g}")
