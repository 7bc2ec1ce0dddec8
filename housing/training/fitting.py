"""Config to fitted model: its members, their features, early stopping, cross-validation."""

import time
from collections.abc import Mapping

import numpy as np
from omegaconf import DictConfig, OmegaConf
from threadpoolctl import threadpool_limits

from housing.bundle.ensemble import Ensemble, Member
from housing.data.split import Rows
from housing.data.table import Table
from housing.training.callbacks import OnRound, no_op
from housing.training.estimator_specs import estimator_specs
from housing.training.estimators import (
    HOLDOUT_EVERY,
    FittedEstimator,
    Model,
    _best_rounds,
    _fit_applicability,
    _fit_features,
    _fit_member,
    _FittedFeatures,
)


def fit(
    cfg: DictConfig,
    table: Table,
    rows: Rows,
    validation: Rows | None = None,
    rounds: Mapping[str, int] | None = None,
    on_round: OnRound = no_op,
) -> Model:
    """Fit the model of a config on some rows of a table.

    Early stopping looks at the `watched` rows; without them at a tenth of the rows that are then not fitted on; not at all
    where `rounds` says how many there are.
    """
    start = time.perf_counter()
    specs = estimator_specs(cfg)
    if validation is None and rounds is None and any(one.early_stopping_rounds for one in specs):
        validation, rows = rows[::HOLDOUT_EVERY], np.delete(rows, np.s_[::HOLDOUT_EVERY])
    fitted_features: dict[str, _FittedFeatures] = {}
    members, best_rounds = [], {}
    with threadpool_limits(cfg.n_threads or None):
        for spec in specs:
            features_key = f"{OmegaConf.to_container(spec.features, resolve=True)} {spec.nan_handling}"
            if features_key not in fitted_features:
                fitted_features[features_key] = _fit_features(spec, len(fitted_features), table, rows, validation)
            columns = (
                None
                if spec.visible_blocks is None
                else fitted_features[features_key].features.visible_columns(spec.visible_blocks)
            )
            estimator = _fit_member(spec, fitted_features[features_key].select(columns), (rounds or {}).get(spec.name), on_round)
            if spec.early_stopping_rounds:
                best_rounds[spec.name] = _best_rounds(estimator)
            members.append(Member(FittedEstimator(estimator), fitted_features[features_key].index, spec.region, columns))
        reach = _fit_applicability(cfg.model.get("applicability"), table.schema, table.matrix[rows])
    ensemble = Ensemble(table.schema, [each.features for each in fitted_features.values()], members, reach)
    return Model(ensemble, time.perf_counter() - start, best_rounds)
