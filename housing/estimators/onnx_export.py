"""ONNX export of a fitted estimator, verified against the estimator's own predictions."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from housing.bundle.onnx_model import OnnxModel, OnnxRuntimeModel, require_equal
from housing.core.errors import BundleError, ConfigError, HousingError
from housing.estimators.boosting import as_fitted
from housing.estimators.distance_export import converters
from housing.estimators.neural_export import neural_to_onnx
from housing.estimators.tree_export import forest_to_onnx, histogram_boosting_to_onnx, lightgbm_to_onnx, xgboost_to_onnx
from housing.schema.column import Matrix


def to_onnx(estimator: Any, n_features: int) -> bytes:
    """Convert a fitted estimator of `n_features` columns to ONNX.

    Raises
    ------
    ConfigError
        If its library has no converter, or if it is not a regressor.
    """
    library = type(estimator).__module__.split(".")[0]
    if library not in CONVERTERS:
        raise ConfigError(
            f"model.estimator must be an estimator of {' or '.join(CONVERTERS)} (got {type(estimator).__name__} of {library}):"
            " others cannot be exported to ONNX"
        )
    return CONVERTERS[library](estimator, n_features).SerializeToString()


# pylint: disable=import-outside-toplevel  # converters take seconds to import, and a reused run needs none


def _sklearn_to_onnx(estimator: Any, n_features: int) -> Any:
    from sklearn.base import is_regressor
    from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor, RandomForestRegressor
    from sklearn.tree import DecisionTreeRegressor

    if not is_regressor(estimator):
        raise ConfigError(f"model.estimator must be a regressor (got {type(estimator).__name__})")
    if isinstance(estimator, HistGradientBoostingRegressor):
        return histogram_boosting_to_onnx(estimator, n_features)
    if isinstance(estimator, (DecisionTreeRegressor, ExtraTreesRegressor, RandomForestRegressor)):
        return forest_to_onnx(estimator, n_features)
    return _convert_sklearn(estimator, n_features)


def _convert_sklearn(estimator: Any, n_features: int) -> Any:
    import onnx
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
    from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator

    # A sum of products loses digits in float32. Trees compare in float32 in scikit-learn itself.
    number = FloatTensorType if type(estimator).__module__.startswith(TREE_MODULES) else DoubleTensorType
    try:
        model = convert_sklearn(estimator, initial_types=[("columns", number([None, n_features]))], **converters())
    except (MissingConverter, MissingShapeCalculator) as error:
        raise ConfigError(
            f"model.estimator={type(estimator).__name__} cannot be exported to ONNX: {str(error).splitlines()[0]}"
        ) from error
    onnx.checker.check_model(model)
    return model


def _xgboost_to_onnx(estimator: Any, n_features: int) -> Any:
    return xgboost_to_onnx(estimator, n_features) or _convert_xgboost(estimator, n_features)


def _convert_xgboost(estimator: Any, n_features: int) -> Any:
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    return convert_xgboost(estimator, initial_types=[("columns", FloatTensorType([None, n_features]))])


def _catboost_to_onnx(estimator: Any, _: int) -> Any:
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        estimator.save_model(str(path), format="onnx")
        return onnx.load(path)


TREE_MODULES = ("sklearn.ensemble", "sklearn.tree")
CONVERTERS = {
    "sklearn": _sklearn_to_onnx,
    "xgboost": _xgboost_to_onnx,
    "lightgbm": lightgbm_to_onnx,
    "catboost": _catboost_to_onnx,
    "housing": neural_to_onnx,
}


def export_and_verify(estimator: Any, columns: Matrix, tolerance: float) -> OnnxModel:
    """Export an estimator, and compare its predictions on every row of `columns`. See `export` and `verify_export`."""
    exported = export(estimator, columns.shape[1])
    verify_export(estimator, exported, columns, tolerance)
    return exported


def export(estimator: Any, n_features: int) -> OnnxModel:
    """Export an estimator of `n_features` columns. Raises ConfigError if a bundle may not contain the operators of its graph."""
    try:
        return OnnxModel(to_onnx(estimator, n_features))
    except BundleError as refusal:
        raise ConfigError(f"model.estimator={type(estimator).__name__} cannot be served. {refusal}") from refusal


def verify_export(estimator: Any, exported: OnnxModel, columns: Matrix, tolerance: float, first_row: int = 0) -> None:
    """Compare predictions of an estimator with those of its export, in ONNX Runtime and in the tree walker.

    `first_row` is the number of the first of these validation rows.

    Raises
    ------
    HousingError
        If a prediction differs by more than `tolerance`.
    """
    expected = np.asarray(estimator.predict(as_fitted(estimator, columns)), dtype=np.float64).reshape(-1)
    predicted = exported.predict(columns)
    if exported.uses_tree_walker:
        require_equal(predicted, OnnxRuntimeModel(exported.graph).predict(columns))
    error = np.abs(predicted - expected)
    if not np.all(error <= tolerance):
        row = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
        raise HousingError(
            f"The exported model differs from the fitted estimator by {error[row]:.3g} on validation row {first_row + row}"
            f" (prediction {expected[row]:.6g}, limit {tolerance:.3g}). {type(estimator).__name__} may lose precision in float32."
            " Use another estimator, or accept the difference with a larger parity_tolerance."
        )
