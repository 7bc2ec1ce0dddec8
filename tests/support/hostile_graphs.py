"""ONNX graphs that a bundle must not contain."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

GRAPH = "members/0/model.onnx"


def graph(nodes: Sequence[onnx.NodeProto], initializers: Sequence[TensorProto] = (), **more: Any) -> Callable[[Path], object]:
    """Return a function that replaces the graph of a bundle by one with the input columns of the rentals."""
    inputs = helper.make_tensor_value_info("columns", TensorProto.FLOAT, [None, 7])
    outputs = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])
    model = helper.make_model(helper.make_graph(nodes, "hostile", [inputs], [outputs], initializers), **more)
    return lambda directory: (directory / GRAPH).write_bytes(model.SerializeToString())


def endless() -> onnx.NodeProto:
    """Return an endless loop."""
    names = ("i", "go", "x")
    inputs = [
        helper.make_tensor_value_info(name, kind, [])
        for name, kind in zip(names, (TensorProto.INT64, TensorProto.BOOL, TensorProto.FLOAT), strict=True)
    ]
    outputs = [
        helper.make_tensor_value_info(name, kind, []) for name, kind in (("on", TensorProto.BOOL), ("z", TensorProto.FLOAT))
    ]
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["x"], ["z"])], "body", inputs, outputs
    )
    return helper.make_node("Loop", ["", "", "columns"], ["y"], body=body)
