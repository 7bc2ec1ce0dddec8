"""Fits of XGBoost on rows and their masked copies, which are made chunk by chunk, so that the rows are in memory once."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

from housing.estimators.weighted_rows import WeightedRows

CHUNK = 50_000  # rows
MAX_ROWS_IN_MEMORY = 100_000  # the bins of more rows are on disk: in memory, those of 76 columns take 600 bytes a row
KEPT_PARAMETERS = ("objective", "booster", "base_score")  # which an estimator takes from a model that it loads


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


def can_fit(estimator: Any) -> bool:
    """Return whether XGBoost can read the rows of this estimator in chunks."""
    parameters = estimator.get_params()
    return (
        parameters["tree_method"] in (None, "auto", "hist")
        and parameters["booster"] in (None, "gbtree", "dart")
        and not callable(parameters["objective"])
        and (parameters["eval_metric"] is None or isinstance(parameters["eval_metric"], str))
        and parameters["feature_weights"] is None
    )


def fit(estimator: Any, rows: WeightedRows, validation: WeightedRows | None) -> None:
    """Fit an estimator as its `fit` does with all rows in one array: the model is the same to the last bit."""
    parameters = estimator.get_params()
    with tempfile.TemporaryDirectory() as folder:
        estimator.load_model(_train(estimator, parameters, rows, validation, Path(folder)))
    estimator.set_params(**{name: parameters[name] for name in KEPT_PARAMETERS})


def _train(
    estimator: Any, parameters: Mapping[str, Any], rows: WeightedRows, validation: WeightedRows | None, folder: Path
) -> bytearray:
    """Return the fitted model. The folder is free of files in use when this function returns."""
    options = {"nthread": parameters["n_jobs"], "max_bin": parameters["max_bin"], "missing": parameters["missing"]}
    training: xgboost.DMatrix
    if len(rows.columns) > MAX_ROWS_IN_MEMORY:
        training = xgboost.ExtMemQuantileDMatrix(_Chunks(rows, str(folder / "bins")), **options)
    else:
        training = xgboost.QuantileDMatrix(_Chunks(rows), **options)
    watched = []
    if validation is not None:
        known = {"label": validation.target, "weight": validation.weight, "ref": training}
        watched = [(xgboost.QuantileDMatrix(validation.columns, **known, **options), "validation_0")]
    metric = {} if parameters["eval_metric"] is None else {"eval_metric": parameters["eval_metric"]}
    with xgboost.config_context(verbosity=parameters["verbosity"]):
        booster = xgboost.train(
            {**estimator.get_xgb_params(), **metric},
            training,
            estimator.get_num_boosting_rounds(),
            evals=watched,
            early_stopping_rounds=parameters["early_stopping_rounds"],
            callbacks=parameters["callbacks"],
            verbose_eval=False,
        )
    return booster.save_raw("ubj")
