"""The ONNX policy: which graphs a bundle may contain (trees and arithmetic, with all numbers inside the file).

ONNX also has loops, functions, custom operators and tensors in external files, which could hang or attack the process that
predicts.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from housing.bundle.onnx_reader import ML_DOMAIN, TREE_OPERATOR
from housing.core.errors import BundleError

ALLOWED_OPERATORS = {
    *(("", name) for name in ("Add", "Cast", "Div", "Exp", "Gemm", "Identity", "MatMul", "Max", "Mul", "Reshape", "Sub")),
    *(("", name) for name in ("Concat", "Flatten", "Gather", "ReduceMean", "Relu", "Sigmoid", "Sqrt", "Sum", "Tanh", "TopK")),
    *((ML_DOMAIN, name) for name in ("LinearRegressor", "Scaler", TREE_OPERATOR)),
}
NODE_PARTS = ("treeids", "nodeids", "truenodeids", "falsenodeids")

NodeIds = NDArray[np.int64]


def check_model(model: Any, size: int) -> None:
    """Check a parsed model of `size` bytes before any engine reads it. Raises BundleError if it breaks the policy."""
    if model.functions or model.training or model.graph.sparse:
        raise BundleError(
            "The ONNX graph has functions, training steps or sparse tensors; only nodes and dense tensors are allowed."
        )
    for node in model.graph.node:
        _check_node(node)
    for tensor in (*model.graph.initializer, *_tensors(model.graph.node)):
        _check_tensor(tensor, size)


def _check_node(node: Any) -> None:
    if (node.domain, node.op_type) not in ALLOWED_OPERATORS:
        names = ", ".join(name for _, name in sorted(ALLOWED_OPERATORS))
        domain = node.domain or "ai.onnx"
        raise BundleError(f"The ONNX graph has the operator {node.op_type!r} of {domain!r}; allowed operators: {names}.")
    for attribute in node.attribute:
        if attribute.HasField("g") or attribute.graphs or attribute.HasField("sparse") or attribute.sparses:
            raise BundleError(
                f"The ONNX graph has a node {node.op_type} with a subgraph or a sparse tensor, which is not allowed."
            )
    if node.op_type == TREE_OPERATOR:
        _check_trees(node)


def _check_trees(node: Any) -> None:
    """Raise BundleError unless every tree is a proper tree: evaluation of a cycle never ends."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    ids = [attributes[f"nodes_{part}"].ints if f"nodes_{part}" in attributes else () for part in NODE_PARTS]
    tree, node_id, true, false = (np.array(values, dtype=np.int64) for values in ids)
    modes = attributes["nodes_modes"].strings if "nodes_modes" in attributes else ()
    if len(attributes) < len(node.attribute) or {len(modes), *map(len, ids)} != {len(modes)}:
        raise BundleError("The ONNX graph has trees with a duplicate attribute, or with node attributes of different lengths.")
    inner, root = np.array([mode != b"LEAF" for mode in modes], dtype=bool), np.diff(tree, prepend=tree[:1] - 1) != 0
    entered = np.concatenate((node_id[root], true[inner], false[inner]))
    entered_trees = np.concatenate((tree[root], tree[inner], tree[inner]))
    if _has_duplicates(tree, node_id) or _has_duplicates(entered_trees, entered):
        raise BundleError("The ONNX graph has a tree with a duplicate node, a node with two parents, or a root with a parent.")


def _has_duplicates(tree_ids: NodeIds, node_ids: NodeIds) -> bool:
    order = np.lexsort((node_ids, tree_ids))
    return bool(((np.diff(tree_ids[order]) == 0) & (np.diff(node_ids[order]) == 0)).any())


def _tensors(nodes: Any) -> Iterator[Any]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from attribute.tensors
        if attribute.HasField("t"):
            yield attribute.t


def _check_tensor(tensor: Any, size: int) -> None:
    if tensor.external_data or tensor.data_location:
        raise BundleError("The ONNX graph has numbers in an external file; they must be inside the graph.")
    if any(length < 0 for length in tensor.dims) or math.prod(tensor.dims) > size:
        raise BundleError(f"The ONNX graph has a tensor of shape {tuple(tensor.dims)}, which a file of {size} bytes cannot hold.")
