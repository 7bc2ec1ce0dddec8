"""Out-of-fold predictions: each row predicted by a model that was not fitted on it, with early stopping on the fold."""

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from housing.core.errors import ConfigError, TrialPruned
from housing.data.split import Rows, Split
from housing.data.table import Table
from housing.fitting.callbacks import OnRound, no_op
from housing.fitting.estimators import Model
from housing.fitting.feature_cache import FeatureCache
from housing.fitting.fitting import FitSettings, fit
from housing.schema.column import Vector
from housing.training.cross_validation import ExpandingWindow

Fold = tuple[Rows, Rows]  # the rows of a fit, and those that it predicts


@dataclass(frozen=True)
class FittedFold:
    """The model of a fold, its predictions of the fold's rows, and the duration of the fit."""

    index: int
    model: Model
    predicted: Vector
    seconds: float


# Receives the fitted folds so far, and the seconds that the other folds will take.
OnFoldFitted = Callable[[list[FittedFold], float], None]


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
        Sum of the durations of the fits. Fits that run side by side count in full.
    last
        The model of the last fold.
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
    on_folds: OnFoldFitted = no_op,
    on_round: OnRound = no_op,
    cache: FeatureCache | None = None,
) -> OutOfFold:
    """Fit once for each fold, side by side on the cores, and predict the rows of the folds. Test rows are not used.

    Early stopping looks at the rows of the fold, so scores of boosted models are slightly too good. `on_folds` and `on_round` may
    raise an exception to stop all fits. `on_round` is called in the threads of the fits.
    """
    n_workers, n_threads = _workers(len(folds), settings.n_threads)
    settings = replace(settings, n_threads=n_threads)

    def fit_fold(index: int, on_round: OnRound) -> FittedFold:
        start, (fit_rows, fold) = time.perf_counter(), folds[index]
        model = fit(settings, table, fit_rows, fold, on_round=on_round, units=parts.units, cache=cache)
        predicted = model.predict(table.matrix[fold])
        return FittedFold(index, model, predicted, time.perf_counter() - start)

    fitted: list[FittedFold] = []
    with _stoppable_fits(fit_fold, len(folds), n_workers, on_round) as futures:
        for future in as_completed(futures):
            fitted.append(future.result())
            n_started = min(len(folds), max(len(fitted), n_workers))
            mean_seconds = float(np.mean([fitted_fold.seconds for fitted_fold in fitted]))
            on_folds(fitted, mean_seconds * math.ceil((len(folds) - n_started) / n_workers))
    fitted.sort(key=lambda fitted_fold: fitted_fold.index)
    rows = np.concatenate([fold for _, fold in folds])
    order, models = np.argsort(rows), [fitted_fold.model for fitted_fold in fitted]
    rounds = {name: round(float(np.mean([model.best_rounds[name] for model in models]))) for name in models[0].best_rounds}
    predicted = np.concatenate([fitted_fold.predicted for fitted_fold in fitted])[order]
    return OutOfFold(rows[order], predicted, rounds, sum(fitted_fold.seconds for fitted_fold in fitted), models[-1])


def _workers(n_folds: int, n_threads: int) -> tuple[int, int]:
    """Return how many folds are fitted side by side, and the threads of each fit. Fits that share no work need not wait."""
    n_cores = n_threads or len(os.sched_getaffinity(0))
    n_workers = min(n_folds, n_cores)
    return n_workers, n_cores // n_workers


@contextmanager
def _stoppable_fits(
    fit_fold: Callable[[int, OnRound], FittedFold], n_folds: int, n_workers: int, on_round: OnRound
) -> Iterator[list[Future[FittedFold]]]:
    """Fit folds in threads during a block. At its end, fits that still run stop at their next report of a boosting round."""
    is_over = threading.Event()

    def report_or_stop(name: str, done: int, rounds: int, value: float | None) -> None:
        if is_over.is_set():
            raise TrialPruned("Stopped, because another fold was.")
        on_round(name, done, rounds, value)

    # A fit limits OpenMP in its own thread, but BLAS in the whole process: without this limit, that of the last fit would stay.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(n_workers) as pool:
        futures = [pool.submit(fit_fold, index, report_or_stop) for index in range(n_folds)]
        try:
            yield futures
        finally:
            is_over.set()
            for future in futures:
                future.cancel()
