"""Export of support vector and nearest-neighbour regression to ONNX in double precision.

The converters of skl2onnx write a support vector machine in float32, whose predictions miss the parity tolerance, and search
neighbours in a loop, which a bundle must not contain. Here both are matrix products between rows and training rows.
"""

# pylint: disable=import-outside-toplevel,no-member,protected-access
# skl2onnx takes seconds to import and makes its operators at run time; for private names see docs/reference/private-apis.md.
from typing import Any

import numpy as np

from housing.core.errors import ConfigError
from housing.schema.column import Matrix

SMALLEST_SQUARE = 1e-200  # a neighbour at distance 0 gets nearly all the weight, as in scikit-learn


def converters() -> dict[str, dict[type, Any]]:
    """Return the arguments of `convert_sklearn` that register the converters."""
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.svm import SVR, NuSVR

    functions = {SVR: _convert_svr, NuSVR: _convert_svr, KNeighborsRegressor: _convert_neighbours}
    return {
        "custom_conversion_functions": functions,
        "custom_shape_calculators": dict.fromkeys(functions, _set_shape),
    }


def _set_shape(operator: Any) -> None:
    from skl2onnx.common.data_types import DoubleTensorType

    operator.outputs[0].type = DoubleTensorType([None, 1])


def _convert_svr(scope: Any, operator: Any, container: Any) -> None:
    """Write the kernel between rows and support vectors, times the dual coefficients."""
    from skl2onnx.algebra import onnx_ops as ops

    model, version = operator.raw_operator, {"op_version": container.target_opset}
    coefficients, intercept = model.dual_coef_.reshape(-1, 1), model.intercept_.astype(np.float64)
    if model.kernel == "linear":
        products = ops.OnnxMatMul(operator.inputs[0], model.coef_.reshape(-1, 1), **version)
    elif model.kernel == "rbf":
        # gamma as fitted: the attribute holds the word "scale"
        squares = _squared_distances(operator.inputs[0], model.support_vectors_, version)
        kernel = ops.OnnxExp(ops.OnnxMul(squares, np.array([-model._gamma]), **version), **version)
        products = ops.OnnxMatMul(kernel, coefficients, **version)
    else:
        raise ConfigError(f"kernel of SVR must be rbf or linear (got {model.kernel!r}): others cannot be exported to ONNX")
    total = ops.OnnxAdd(products, intercept, **version)
    ops.OnnxIdentity(total, output_names=operator.outputs[:1], **version).add_to(scope, container)


def _convert_neighbours(scope: Any, operator: Any, container: Any) -> None:
    """Write the distances to all training rows, the choice of the smallest, and the mean of their targets."""
    from skl2onnx.algebra import onnx_ops as ops

    model, version = operator.raw_operator, {"op_version": container.target_opset}
    if model.effective_metric_ != "euclidean" or model.weights not in ("uniform", "distance"):
        raise ConfigError(
            "metric of KNeighborsRegressor must be euclidean (minkowski with p=2), and weights uniform or distance (got"
            f" {model.effective_metric_!r}, {model.weights!r}): others cannot be exported to ONNX"
        )
    squares = _squared_distances(operator.inputs[0], model._fit_X, version)
    nearest = ops.OnnxTopK(squares, np.array([model.n_neighbors]), axis=1, largest=0, sorted=1, **version)
    targets = ops.OnnxGather(np.asarray(model._y, dtype=np.float64).reshape(-1), nearest[1], axis=0, **version)
    ones = np.ones((model.n_neighbors, 1))
    if model.weights == "uniform":
        mean = ops.OnnxMatMul(targets, ones / model.n_neighbors, **version)
    else:
        distances = ops.OnnxSqrt(ops.OnnxMax(nearest[0], np.array([SMALLEST_SQUARE]), **version), **version)
        weights = ops.OnnxDiv(np.array([1.0]), distances, **version)
        weighted = ops.OnnxMatMul(ops.OnnxMul(weights, targets, **version), ones, **version)
        mean = ops.OnnxDiv(weighted, ops.OnnxMatMul(weights, ones, **version), **version)
    ops.OnnxIdentity(mean, output_names=operator.outputs[:1], **version).add_to(scope, container)


def _squared_distances(columns: Any, rows: Matrix, version: dict[str, int]) -> Any:
    """Return the squared distance of each input row to each of some rows: |a|² + |b|² - 2ab."""
    from skl2onnx.algebra import onnx_ops as ops

    rows = np.asarray(rows, dtype=np.float64)
    norms = ops.OnnxMatMul(ops.OnnxMul(columns, columns, **version), np.ones((rows.shape[1], 1)), **version)
    products = ops.OnnxMatMul(columns, -2.0 * rows.T, **version)
    return ops.OnnxAdd(ops.OnnxAdd(products, np.square(rows).sum(axis=1)[None, :], **version), norms, **version)
