"""Fitting of a model: its features, its estimators and early stopping."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from omegaconf import DictConfig, OmegaConf
from threadpoolctl import threadpool_limits

from housing.bundle.ensemble import Ensemble, Member
from housing.data.split import Rows
from housing.data.table import Table, weight_column
from housing.data.units import HELD_OUT_SHARE, Units
from housing.features.applicability import ApplicabilityDomain
from housing.training.callbacks import OnRound, no_op
from housing.training.estimator_specs import EstimatorSpec, estimator_specs
from housing.training.estimators import (
    FittedFeatures,
    Model,
    best_rounds,
    fit_estimator,
    fit_features,
    require_weighted_fit,
)


@dataclass(frozen=True)
class FitSettings:
    """How a model is fitted.

    Attributes
    ----------
    applicability
        Parameters of the area of applicability that blends estimators of different regions, or None.
    n_threads
        0 is every core.
    """

    specs: tuple[EstimatorSpec, ...]
    applicability: Mapping[str, Any] | None = None
    n_threads: int = 0

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Self:
        """Read the settings from the config of a run."""
        node = cfg.model.get("applicability")
        applicability: Any = None if node is None else OmegaConf.to_container(node, resolve=True)
        return cls(tuple(estimator_specs(cfg)), applicability, cfg.n_threads)

    @property
    def uses_early_stopping(self) -> bool:
        """Whether the number of boosting rounds depends on validation rows."""
        return any(spec.early_stopping_rounds for spec in self.specs)


def fit(
    settings: FitSettings,
    table: Table,
    rows: Rows,
    validation: Rows | None = None,
    rounds: Mapping[str, int] | None = None,
    on_round: OnRound = no_op,
    units: Units | None = None,
) -> Model:
    """Fit a model on some rows of a table.

    Early stopping uses the `validation` rows. Without them, every tenth training row is held out, or whole `units` if there are
    any. If `rounds` is given (boosting rounds by estimator name), early stopping is disabled.
    """
    start = time.perf_counter()
    for spec in settings.specs:
        require_weighted_fit(f"model.estimator of {spec.name}", spec.create_estimator(), weight_column(table.schema))
    if validation is None and rounds is None and settings.uses_early_stopping:
        held_out = np.arange(len(rows)) % HELD_OUT_SHARE == 0 if units is None else units.hold_out(rows)
        validation, rows = rows[held_out], rows[~held_out]
    shared_features: dict[str, FittedFeatures] = {}
    members, rounds_by_name = [], {}
    with threadpool_limits(settings.n_threads or None):
        for spec in settings.specs:
            if spec.features_key not in shared_features:
                shared_features[spec.features_key] = fit_features(spec, len(shared_features), table, rows, validation)
            fitted = shared_features[spec.features_key]
            columns = None if spec.visible_blocks is None else fitted.features.visible_columns(spec.visible_blocks)
            estimator = fit_estimator(spec, fitted.select(columns), (rounds or {}).get(spec.name), settings.n_threads, on_round)
            if spec.early_stopping_rounds:
                rounds_by_name[spec.name] = best_rounds(estimator)
            members.append(Member(estimator, fitted.index, spec.region, columns))
        applicability = ApplicabilityDomain.from_config(table.schema, settings.applicability)
        if applicability is not None:
            applicability.fit(table.matrix[rows])
    ensemble = Ensemble(table.schema, [fitted.features for fitted in shared_features.values()], members, applicability)
    return Model(ensemble, time.perf_counter() - start, rounds_by_name)
