"""Out-of-fold predictions: each row predicted by a model that was not fitted on it, with early stopping on the fold."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from housing.core.errors import ConfigError
from housing.data.split import Rows, Split
from housing.data.table import Table
from housing.schema.column import Vector
from housing.training.callbacks import OnRound, no_op
from housing.training.cross_validation import ExpandingWindow
from housing.training.estimators import Model
from housing.training.fitting import FitSettings, fit

Fold = tuple[Rows, Rows]  # the rows of a fit, and those that it predicts
OnFoldFitted = Callable[[int, float], None]  # number of fitted folds, and the seconds that they took so far


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold predictions of a model.

    Attributes
    ----------
    rows
        Row indices in the table, ascending.
    predicted
        Shape (rows,), in the target's unit.
    rounds
        Mean of the boosting rounds that early stopping chose, by estimator name.
    fit_seconds
        Duration of all fits.
    last
        The model that was fitted last.
    """

    rows: Rows
    predicted: Vector
    rounds: dict[str, int]
    fit_seconds: float
    last: Model


def make_folds(parts: Split, n_folds: int, seed: int, gap: float = 0.0) -> list[Fold]:
    """Divide training and validation rows into folds as the split divides the table: by row, by unit, or from past to future.

    `gap` is the distance in time between the rows of a fit and its fold, for a split by time.

    Raises
    ------
    ConfigError
        If there are more folds than rows or units.
    """
    from sklearn.model_selection import GroupKFold, KFold  # pylint: disable=import-outside-toplevel  # takes seconds to import

    rows = np.union1d(parts.train, parts.valid)
    units = parts.units_of(rows)
    try:
        if units is None:
            pairs = list(KFold(n_folds, shuffle=True, random_state=seed).split(rows))
        elif units.times is None:
            pairs = list(GroupKFold(n_folds, shuffle=True, random_state=seed).split(rows, groups=units.of_row))
        else:
            pairs = list(ExpandingWindow(n_folds, gap).split(rows, units.times))
    except ValueError as error:
        raise ConfigError(f"{len(rows)} training and validation rows cannot be divided into {n_folds} folds: {error}") from error
    return [(rows[others], rows[fold]) for others, fold in pairs]


def predict_out_of_fold(
    settings: FitSettings,
    table: Table,
    parts: Split,
    folds: list[Fold],
    on_fold: OnFoldFitted = no_op,
    on_round: OnRound = no_op,
) -> OutOfFold:
    """Fit once for each fold, and predict its rows. Test rows are not used.

    Early stopping looks at the rows of the fold, so scores of boosted models are slightly too good. `on_fold` and `on_round` may
    raise an exception to stop.
    """
    predicted, models, start = [], [], time.perf_counter()
    for number, (fit_rows, fold) in enumerate(folds, start=1):
        model = fit(settings, table, fit_rows, fold, on_round=on_round, units=parts.units)
        models.append(model)
        predicted.append(model.predict(table.matrix[fold]))
        on_fold(number, time.perf_counter() - start)
    rows = np.concatenate([fold for _, fold in folds])
    order = np.argsort(rows)
    rounds = {name: round(float(np.mean([model.best_rounds[name] for model in models]))) for name in models[0].best_rounds}
    return OutOfFold(rows[order], np.concatenate(predicted)[order], rounds, time.perf_counter() - start, models[-1])
