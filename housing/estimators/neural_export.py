"""Export of the neural network to ONNX, as matrix products and arithmetic in double precision."""

from typing import Any

import numpy as np


def neural_to_onnx(estimator: Any, n_features: int) -> Any:
    """Return the ONNX model of a NeuralRegressor: its scaling, and its layers with the activation x * sigmoid(x)."""
    from onnx import TensorProto, helper, numpy_helper  # pylint: disable=import-outside-toplevel  # takes seconds to import

    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(value: Any) -> str:
        name = f"constant_{len(constants)}"
        constants.append(numpy_helper.from_array(np.asarray(value, dtype=np.float64), name))
        return name

    def apply(operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"value_{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    columns = apply("Cast", "columns", to=TensorProto.DOUBLE)
    scaled = apply("Mul", apply("Sub", columns, constant(estimator.center_)), constant(estimator.factor_))
    relative = apply("Div", scaled, constant(estimator.bound_))
    squares = apply("Add", apply("Mul", relative, relative), constant(1.0))
    values = apply("Div", scaled, apply("Sqrt", squares))
    for weight, bias in estimator.layers_[:-1]:
        values = apply("Add", apply("MatMul", values, constant(weight)), constant(bias))
        values = apply("Mul", values, apply("Sigmoid", values))
    weight, bias = estimator.layers_[-1]
    apply("Add", apply("MatMul", values, constant(weight)), constant(bias), output="predictions")
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("columns", TensorProto.FLOAT, [None, n_features])],
        [helper.make_tensor_value_info("predictions", TensorProto.DOUBLE, [None, 1])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
