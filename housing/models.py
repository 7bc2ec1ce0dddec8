"""Config to fitted model to bundle: estimators, their conversion to ONNX, metrics."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from threadpoolctl import threadpool_limits

from housing.bundle import Bundle, Member, within
from housing.config import make
from housing.data import Table
from housing.errors import ConfigError, HousingError
from housing.features import Features
from housing.schema import Matrix, Vector, reference
from housing.split import Rows, Split

TIMED_ROWS = 50
COMPARABLE = ("rmse", "mae")  # scores of which less is better
COSTS = ("fit_seconds", "row_microseconds", "model_bytes")  # less is better there too

AfterFold = Callable[[int, int, dict[str, float]], None]  # number of the fold from 1, folds, scores so far


@dataclass(frozen=True)
class Fitted:
    """Features and estimator after fitting, and the seconds that took."""

    features: Features
    estimator: Any
    seconds: float


def fit(cfg: DictConfig, table: Table, rows: Rows) -> Fitted:
    """Fit the features and the estimator of a config on some rows of a table."""
    blocks: Any = OmegaConf.to_container(cfg.features.blocks, resolve=True)
    features = Features(table.schema, blocks, cfg.model.missing)
    estimator = make(cfg.model.estimator)
    start = time.perf_counter()
    with threadpool_limits(cfg.threads or None):
        columns = features.fit_transform(table.matrix[rows], table.target[rows])
        estimator.fit(columns, table.target[rows])
    return Fitted(features, estimator, time.perf_counter() - start)


def cross_validate(cfg: DictConfig, table: Table, parts: Split, after_fold: AfterFold) -> dict[str, float]:
    """Score predictions for all rows but the test rows, each made by a model that was fitted on the other folds.

    `after_fold` is told the scores over the folds so far, and may raise to give up.
    """
    rows = np.sort(np.concatenate([parts.train, parts.valid]))
    folds = list(make(cfg.evaluation.folds).split(rows))
    predicted, actual = np.full(len(rows), np.nan), table.target[rows]
    for number, (others, fold) in enumerate(folds, start=1):
        fitted = fit(cfg, table, rows[others])
        raw = fitted.estimator.predict(fitted.features.transform(table.matrix[rows[fold]]))
        predicted[fold] = within(table.schema, np.asarray(raw, dtype=np.float64).reshape(-1))
        done = ~np.isnan(predicted)
        after_fold(number, len(folds), score(predicted[done], actual[done]))
    return score(predicted, actual)


def to_bundle(fitted: Fitted, table: Table, split: Split, parity: float, golden_rows: int) -> Bundle:
    """Convert a fitted model and prove the conversion on every validation row.

    Raises HousingError where the converted estimator differs by more than `parity` standard deviations of the target.
    """
    member = Member(fitted.features, to_onnx(fitted.estimator, len(fitted.features.names)))
    _check_parity(fitted, member, table.matrix[split.valid], parity * float(table.target[split.train].std()))
    bundle = Bundle(table.schema, [member], reference={}, card={}, golden={})
    train = table.matrix[split.train]
    bundle.reference = reference(table.schema, train, bundle.predict(train))
    bundle.pick_golden(table.matrix[split.valid], golden_rows)
    return bundle


def to_onnx(estimator: Any, width: int) -> bytes:
    """Convert an estimator that takes `width` columns. Raises ConfigError for one of a library without a converter."""
    library = type(estimator).__module__.split(".")[0]
    if library not in CONVERTERS:
        raise ConfigError(f"model.estimator is of {library}; estimators of {', '.join(CONVERTERS)} can be converted to ONNX")
    return CONVERTERS[library](estimator, width).SerializeToString()


# pylint: disable=import-outside-toplevel  # converters cost seconds; a run that is reused needs none


def _sklearn_to_onnx(estimator: Any, width: int) -> Any:
    import onnx
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
    from sklearn.base import is_regressor
    from sklearn.linear_model import LinearRegression

    if not is_regressor(estimator):
        raise ConfigError(f"model.estimator is {type(estimator).__name__}, which is not a regressor")
    # Trees compare float32 in scikit-learn itself; a sum of products loses digits there.
    number = DoubleTensorType if isinstance(estimator, LinearRegression) else FloatTensorType
    model = convert_sklearn(estimator, initial_types=[("columns", number([None, width]))])
    onnx.checker.check_model(model)
    return model


def _xgboost_to_onnx(estimator: Any, width: int) -> Any:
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    return convert_xgboost(estimator, initial_types=[("columns", FloatTensorType([None, width]))])


# pylint: enable=import-outside-toplevel

CONVERTERS = {"sklearn": _sklearn_to_onnx, "xgboost": _xgboost_to_onnx}


def _check_parity(fitted: Fitted, member: Member, matrix: Matrix, allowed: float) -> None:
    columns = fitted.features.transform(matrix)
    expected = np.asarray(fitted.estimator.predict(columns), dtype=np.float64).reshape(-1)
    off = np.abs(member.estimate(columns) - expected)
    if not np.all(off <= allowed):
        row = int(np.argmax(np.where(np.isnan(off), np.inf, off)))
        raise HousingError(
            f"the bundle differs from the fitted estimator by {off[row]:.3g} on validation row {row} ({expected[row]:.6g});"
            f" allowed: {allowed:.3g}"
        )


def require_comparable(metric: str) -> None:
    """Raise ConfigError for a metric that runs cannot be ranked by."""
    if metric not in COMPARABLE:
        raise ConfigError(f"metric is {metric!r}; allowed: {', '.join(COMPARABLE)}")


def score(predicted: Vector, actual: Vector) -> dict[str, float]:
    """Give root mean squared error and mean absolute error (in the target's unit), and the share of variance explained."""
    error = predicted - actual
    spread = float(np.square(actual - actual.mean()).sum())
    return {
        "rmse": float(np.sqrt(np.mean(np.square(error)))),
        "mae": float(np.mean(np.abs(error))),
        "r2": 1.0 - float(np.square(error).sum()) / spread if spread else 0.0,
    }


def cost(bundle: Bundle, matrix: Matrix) -> dict[str, float]:
    """Measure a bundle in this process: microseconds for one row (median), rows per second in one call, bytes."""
    rows = [matrix[[row % len(matrix)]] for row in range(TIMED_ROWS)]
    single = [_seconds(bundle, row) for row in rows]
    return {
        "row_microseconds": 1e6 * float(np.median(single)),
        "rows_per_second": len(matrix) / _seconds(bundle, matrix),
        "model_bytes": float(bundle.size()),
    }


def _seconds(bundle: Bundle, matrix: Matrix) -> float:
    start = time.perf_counter()
    bundle.predict(matrix)
    return time.perf_counter() - start


def rounded(metrics: Mapping[str, float]) -> dict[str, float]:
    """Give metrics as a card shows them: six significant digits."""
    return {name: float(f"{value:.6g}") for name, value in metrics.items()}
