"""XGBoost fits on column chunks. A module of its own, since XGBoost takes seconds to import."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.estimators.round_reporter import RoundReporter
from housing.schema.column import Vector

TREE_METHODS, BOOSTERS = (None, "auto", "hist"), (None, "gbtree", "dart")


@dataclass(frozen=True)
class ChunkedRows:
    """Rows to fit on or to validate with.

    Attributes
    ----------
    columns
        Arrays of consecutive rows, shape (rows, columns), which can be iterated several times.
    target, weight
        Of all rows. The weight is None if all count alike.
    """

    columns: Iterable[NDArray[np.float32]]
    target: Vector
    weight: Vector | None


class _ChunkIterator(xgboost.DataIter):
    """XGBoost's form of an iterator."""

    def __init__(self, rows: ChunkedRows) -> None:
        super().__init__()
        self._rows, self._chunks, self._start = rows, iter(rows.columns), 0

    def reset(self) -> None:
        """Begin with the first chunk again."""
        self._chunks, self._start = iter(self._rows.columns), 0

    def next(self, input_data: Any) -> bool:
        """Pass the next chunk to XGBoost. Return False after the last one."""
        columns = next(self._chunks, None)
        if columns is None:
            return False
        rows = slice(self._start, self._start + len(columns))
        weight = None if self._rows.weight is None else self._rows.weight[rows]
        input_data(data=columns, label=self._rows.target[rows], weight=weight)
        self._start = rows.stop
        return True


def require_histogram_xgboost(name: str, estimator: Any) -> None:
    """Raise ConfigError unless an estimator is an XGBoost regressor whose trees are fitted on histograms."""
    if not isinstance(estimator, xgboost.XGBRegressor):
        raise ConfigError(
            f"engine=stream and dask fit XGBoost only (got {name}: {type(estimator).__name__})."
            " Use model=xgboost, or engine=memory."
        )
    if estimator.tree_method not in TREE_METHODS or estimator.booster not in BOOSTERS:
        actual = f"{estimator.tree_method} and {estimator.booster}"
        raise ConfigError(f"engine=stream and dask need tree_method=hist and booster=gbtree (got {actual} of {name}).")


def fit_on_chunks(
    estimator: xgboost.XGBRegressor,
    training: ChunkedRows,
    validation: ChunkedRows | None,
    patience: int,
    reporter: RoundReporter,
) -> None:
    """Fit an estimator in the way of its own `fit`.

    With validation rows, it stops after `patience` rounds without a better score.
    """
    max_bin = estimator.max_bin
    matrix = xgboost.QuantileDMatrix(_ChunkIterator(training), max_bin=max_bin)
    evaluations = []
    if validation is not None:
        evaluations = [(xgboost.QuantileDMatrix(_ChunkIterator(validation), max_bin=max_bin, ref=matrix), "validation_0")]
    booster = xgboost.train(
        estimator.get_xgb_params(),
        matrix,
        estimator.get_num_boosting_rounds(),
        evals=evaluations,
        early_stopping_rounds=None if validation is None else patience,
        callbacks=[reporter],
        verbose_eval=False,
    )
    estimator.load_model(bytearray(booster.save_raw("ubj")))
