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
KEPT_PARAMETERS = ("objective", "booster", "base_score")  # which an estimator takes from a model that it loads


@dataclass(frozen=True)
class ChunkedRows:
    """Rows to fit on or to validate with.

    Attributes
    ----------
    columns
        Arrays of consecutive rows, shape (rows, columns), which can be iterated several times.
    target, weight
        Of all rows: arrays, or what has slices that are arrays. The weight is None if all count alike.
    """

    columns: Iterable[NDArray[np.float32]]
    target: Any
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


def can_fit(estimator: Any) -> bool:
    """Return whether XGBoost can fit an estimator on chunks of rows as it does on one array."""
    if not isinstance(estimator, xgboost.XGBRegressor):
        return False
    parameters = estimator.get_params()
    return (
        parameters["tree_method"] in TREE_METHODS
        and parameters["booster"] in BOOSTERS
        and not callable(parameters["objective"])
        and (parameters["eval_metric"] is None or isinstance(parameters["eval_metric"], str))
        and parameters["feature_weights"] is None
    )


def fit_on_chunks(
    estimator: xgboost.XGBRegressor,
    training: ChunkedRows,
    validation: ChunkedRows | None,
    patience: int,
    reporter: RoundReporter,
) -> None:
    """Fit an estimator as its own `fit` does with all rows in one array: the model is the same to the last bit.

    With validation rows, it stops after `patience` rounds without a better score.
    """
    options = matrix_options(estimator)
    matrix = xgboost.QuantileDMatrix(_ChunkIterator(training), **options)
    watched = None
    if validation is not None:
        watched = xgboost.QuantileDMatrix(_ChunkIterator(validation), ref=matrix, **options)
    train(estimator, matrix, watched, patience, reporter)


def matrix_options(estimator: xgboost.XGBRegressor) -> dict[str, Any]:
    """Return the options with which an estimator's own `fit` makes its matrices."""
    parameters = estimator.get_params()
    return {"nthread": parameters["n_jobs"], "max_bin": parameters["max_bin"], "missing": parameters["missing"]}


def train(
    estimator: xgboost.XGBRegressor,
    training: xgboost.DMatrix,
    validation: xgboost.DMatrix | None,
    patience: int,
    reporter: RoundReporter,
) -> None:
    """Fit an estimator on matrices. With validation rows, it stops after `patience` rounds without a better score."""
    parameters = estimator.get_params()
    metric = {} if parameters["eval_metric"] is None else {"eval_metric": parameters["eval_metric"]}
    with xgboost.config_context(verbosity=parameters["verbosity"]):
        booster = xgboost.train(
            {**estimator.get_xgb_params(), **metric},
            training,
            estimator.get_num_boosting_rounds(),
            evals=[] if validation is None else [(validation, "validation_0")],
            early_stopping_rounds=None if validation is None else patience,
            callbacks=[reporter],
            verbose_eval=False,
        )
    estimator.load_model(booster.save_raw("ubj"))
    estimator.set_params(**{name: parameters[name] for name in KEPT_PARAMETERS})
