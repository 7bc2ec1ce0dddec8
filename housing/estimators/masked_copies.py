"""Fits of XGBoost on rows and their masked copies, which are made chunk by chunk, so that the rows are in memory once."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

from housing.estimators.round_reporter import RoundReporter
from housing.estimators.weighted_rows import WeightedRows
from housing.estimators.xgboost_chunks import matrix_options, train

CHUNK = 50_000  # rows
MAX_ROWS_IN_MEMORY = 100_000  # the bins of more rows are on disk: in memory, those of 76 columns take 600 bytes a row


class _Chunks(xgboost.DataIter):
    """All rows, then all of them again with the masked columns missing."""

    def __init__(self, rows: WeightedRows, cache_prefix: str | None = None) -> None:
        super().__init__(release_data=True, cache_prefix=cache_prefix, on_host=False)
        self._rows = rows
        self._start = 0

    def reset(self) -> None:
        """Start again."""
        self._start = 0

    def next(self, input_data: Callable[..., Any]) -> bool:
        """Pass on the next chunk. Return whether there was one."""
        rows, n_rows = self._rows, len(self._rows.columns)
        if self._start >= 2 * n_rows:
            return False
        first = self._start % n_rows
        part = slice(first, min(first + CHUNK, n_rows))
        columns = rows.columns[part]
        if self._start >= n_rows:
            columns = columns.copy()
            columns[:, rows.masked] = np.nan
        input_data(data=columns, label=rows.target[part], weight=None if rows.weight is None else rows.weight[part])
        self._start += len(columns)
        return True


def fit(estimator: Any, rows: WeightedRows, validation: WeightedRows | None, patience: int, reporter: RoundReporter) -> None:
    """Fit an estimator as its `fit` does with all rows in one array: the model is the same to the last bit."""
    with tempfile.TemporaryDirectory() as folder:
        train(estimator, *_matrices(estimator, rows, validation, Path(folder)), patience, reporter)


def _matrices(
    estimator: Any, rows: WeightedRows, validation: WeightedRows | None, folder: Path
) -> tuple[xgboost.DMatrix, xgboost.DMatrix | None]:
    options = matrix_options(estimator)
    training: xgboost.DMatrix
    if len(rows.columns) > MAX_ROWS_IN_MEMORY:
        training = xgboost.ExtMemQuantileDMatrix(_Chunks(rows, str(folder / "bins")), **options)
    else:
        training = xgboost.QuantileDMatrix(_Chunks(rows), **options)
    if validation is None:
        return training, None
    known = {"label": validation.target, "weight": validation.weight, "ref": training}
    return training, xgboost.QuantileDMatrix(validation.columns, **known, **options)
