"""Cross-validation: out-of-fold scores of a model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
from omegaconf import DictConfig

from housing.core.config import instantiate
from housing.core.errors import ConfigError
from housing.data.split import Rows, Split
from housing.data.table import Table
from housing.training.callbacks import OnFold, no_op
from housing.training.fitting import FitSettings, fit
from housing.training.ranking_metric import RankingMetric


@dataclass(frozen=True)
class CrossValidationSettings:
    """The folds of one file of `conf/evaluation`.

    Attributes
    ----------
    create_folds
        Returns a splitter of scikit-learn.
    group_rows
        Returns a group number for each row of a table; rows of a group are in the same fold. None: no groups.
    """

    name: str
    create_folds: Callable[[], Any]
    group_rows: Callable[[Table], Rows] | None = None

    @classmethod
    def from_config(cls, evaluation: DictConfig) -> Self | None:
        """Read the settings, or return None if the config declares no folds."""
        if evaluation.folds is None:
            return None
        group_rows = None if evaluation.groups is None else partial(instantiate, evaluation.groups)
        return cls(evaluation.name, partial(instantiate, evaluation.folds), group_rows)


def cross_validate(
    settings: CrossValidationSettings,
    fit_settings: FitSettings,
    metric: RankingMetric,
    table: Table,
    parts: Split,
    on_fold: OnFold = no_op,
) -> dict[str, float]:
    """Return the out-of-fold scores over training and validation rows. Test rows are not used.

    `on_fold` receives the scores over the folds so far, and may raise an exception to stop.

    Raises
    ------
    ConfigError
        If there are more folds than rows or groups.
    """
    rows = np.sort(np.concatenate([parts.train, parts.valid]))
    groups = None if settings.group_rows is None else settings.group_rows(table)[rows]
    try:
        folds = list(settings.create_folds().split(rows, groups=groups))
    except ValueError as error:
        raise ConfigError(f"evaluation={settings.name} cannot split {len(rows)} rows: {error}") from error
    predicted, actual, weight = np.full(len(rows), np.nan), table.target[rows], table.weight_of(rows)
    for number, (fit_indices, fold) in enumerate(folds, start=1):
        model = fit(fit_settings, table, rows[fit_indices], units=parts.units)
        predicted[fold] = model.predict(table.matrix[rows[fold]])
        done = np.flatnonzero(~np.isnan(predicted))
        on_fold(number, len(folds), metric.score(predicted[done], actual[done], table.weight_of(rows[done])))
    return metric.score(predicted, actual, weight)
