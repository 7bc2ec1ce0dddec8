"""Cross-validation: out-of-fold scores of a model."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
from omegaconf import DictConfig

from housing.core.config import instantiate
from housing.core.errors import ConfigError
from housing.data.split import Rows, Split
from housing.data.table import Table
from housing.data.units import Units
from housing.fitting.callbacks import OnFold, no_op
from housing.fitting.fitting import FitSettings, fit
from housing.schema.column import Vector
from housing.scoring.ranking_metric import RankingMetric

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CrossValidationSettings:
    """The folds of one file of `conf/evaluation`.

    Attributes
    ----------
    create_folds
        Returns a splitter of scikit-learn.
    find_units
        Returns the units of the rows of a table; rows of a unit are in the same fold. None: no units.
    """

    name: str
    create_folds: Callable[[], Any]
    find_units: Callable[[Table], Units] | None = None

    @classmethod
    def from_config(cls, evaluation: DictConfig) -> Self | None:
        """Read the settings, or return None if the config declares no folds."""
        if evaluation.folds is None:
            return None
        find_units = None if evaluation.groups is None else partial(instantiate, evaluation.groups)
        return cls(evaluation.name, partial(instantiate, evaluation.folds), find_units)


@dataclass(frozen=True)
class ExpandingWindow:
    """Folds in time: each follows its training rows, and is among the training rows of the next fold.

    Rows with equal times are in the same fold, which scikit-learn's TimeSeriesSplit does not promise. The oldest rows are in no
    fold, as are those in the `gap` between training rows and fold, which is in the unit of the times.
    """

    n_splits: int
    gap: float = 0.0

    def split(self, rows: Rows, groups: Vector) -> Iterator[tuple[Rows, Rows]]:
        """Yield the indices of training rows and fold. `groups` are the times of the rows.

        Raises
        ------
        ValueError
            If a fold has no rows or no training rows.
        """
        ordered = np.sort(groups)
        starts = [ordered[len(rows) * number // (self.n_splits + 1)] for number in range(1, self.n_splits + 1)]
        for start, end in zip(starts, [*starts[1:], np.inf], strict=True):
            training, fold = np.flatnonzero(groups < start - self.gap), np.flatnonzero((groups >= start) & (groups < end))
            if not (training.size and fold.size):
                raise ValueError(
                    f"n_splits={self.n_splits} with a gap of {self.gap:g} leaves a fold without rows or training rows:"
                    f" there are {len(np.unique(groups))} different times. Use fewer folds or a smaller gap."
                )
            yield training, fold


def cross_validate(
    settings: CrossValidationSettings,
    fit_settings: FitSettings,
    metric: RankingMetric,
    table: Table,
    parts: Split,
    on_fold: OnFold = no_op,
) -> dict[str, float]:
    """Return the out-of-fold scores over training and validation rows, as far as they are in a fold. Test rows are not used.

    `on_fold` receives the scores over the folds so far, and may raise an exception to stop.

    Raises
    ------
    ConfigError
        If there are more folds than rows or units.
    """
    rows = np.sort(np.concatenate([parts.train, parts.valid]))
    units = None if settings.find_units is None else settings.find_units(table)
    _report_separated_units(settings, parts, units)
    try:
        folds = list(settings.create_folds().split(rows, groups=None if units is None else units.take(rows).fold_keys))
    except ValueError as error:
        raise ConfigError(f"evaluation={settings.name} cannot split {len(rows)} rows: {error}") from error
    predicted, actual, done = np.empty(len(rows)), table.target[rows], np.zeros(len(rows), dtype=bool)
    for number, (fit_indices, fold) in enumerate(folds, start=1):
        model = fit(fit_settings, table, rows[fit_indices], units=units or parts.units)
        predicted[fold] = model.predict(table.matrix[rows[fold]])
        done[fold] = True
        on_fold(number, len(folds), metric.score(predicted[done], actual[done], table.weight_of(rows[done])))
    return metric.score(predicted[done], actual[done], table.weight_of(rows[done]))


def _report_separated_units(settings: CrossValidationSettings, parts: Split, units: Units | None) -> None:
    """Warn that folds separate rows that the split keeps together: their scores are too good."""
    if parts.units is not None and units is None:
        evaluation = "grouped" if parts.units.times is None else "time"
        log.warning(
            "evaluation=%s separates %s, which the split keeps together: its scores are too good. Use evaluation=%s or holdout.",
            settings.name,
            parts.units.name,
            evaluation,
        )
