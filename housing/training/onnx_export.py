"""A fitted estimator as an ONNX graph, proven to predict the same."""

from typing import Any

import numpy as np

from housing.bundle.onnx_model import OnnxModel, VerifiedOnnxModel
from housing.core.errors import ConfigError, HousingError
from housing.schema.column import Matrix


def to_onnx(estimator: Any, n_features: int) -> bytes:
    """Convert an estimator that takes `width` columns. Raises ConfigError for one of a library without a converter."""
    library = type(estimator).__module__.split(".")[0]
    if library not in CONVERTERS:
        raise ConfigError(f"model.estimator is of {library}; estimators of {', '.join(CONVERTERS)} can be converted to ONNX")
    return CONVERTERS[library](estimator, n_features).SerializeToString()


def _sklearn_to_onnx(estimator: Any, n_features: int) -> Any:
    import onnx
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
    from sklearn.base import is_regressor
    from sklearn.linear_model import LinearRegression

    if not is_regressor(estimator):
        raise ConfigError(f"model.estimator is {type(estimator).__name__}, which is not a regressor")
    # Trees compare float32 in scikit-learn itself; a sum of products loses digits there.
    number = DoubleTensorType if isinstance(estimator, LinearRegression) else FloatTensorType
    model = convert_sklearn(estimator, initial_types=[("columns", number([None, n_features]))])
    onnx.checker.check_model(model)
    return model


def _xgboost_to_onnx(estimator: Any, n_features: int) -> Any:
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    return convert_xgboost(estimator, initial_types=[("columns", FloatTensorType([None, n_features]))])


CONVERTERS = {"sklearn": _sklearn_to_onnx, "xgboost": _xgboost_to_onnx}


def export_and_verify(estimator: Any, columns: Matrix, tolerance: float) -> OnnxModel:
    """Convert an estimator, and prove the graph on every row of `columns`, whatever runs it.

    Raises HousingError where a prediction differs by more than `allowed`.
    """
    graph = VerifiedOnnxModel(to_onnx(estimator, columns.shape[1]))
    expected = np.asarray(estimator.predict(columns), dtype=np.float64).reshape(-1)
    error = np.abs(graph.predict(columns) - expected)
    if not np.all(error <= tolerance):
        row = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
        raise HousingError(
            f"the bundle differs from the fitted estimator by {error[row]:.3g} on validation row {row} ({expected[row]:.6g});"
            f" allowed: {tolerance:.3g}"
        )
    return OnnxModel(graph.graph)
