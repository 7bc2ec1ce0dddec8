"""What an ONNX graph of a bundle may hold: arithmetic of trees and linear models, with all its numbers in the file itself.

A graph is no code, but ONNX has loops, functions, operators of other libraries, and tensors in other files.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from housing.bundle import onnx_reader
from housing.bundle.onnx_reader import ML_DOMAIN, TREE_OPERATOR
from housing.core.errors import BundleError

ALLOWED_OPERATORS = {
    *(("", name) for name in ("Add", "Cast", "Div", "Gemm", "Identity", "MatMul", "Mul", "Reshape", "Sub")),
    *((ML_DOMAIN, name) for name in ("LinearRegressor", TREE_OPERATOR)),
}


NodeIds = NDArray[np.int64]


def check_graph(graph: bytes) -> None:
    """Look through a graph before any engine reads it. Raises BundleError for what is not allowed in one."""
    model = onnx_reader.read_model(graph)
    if model.functions or model.training or model.graph.sparse:
        raise BundleError("has functions, training steps or sparse tensors; allowed: nodes and dense tensors")
    for node in model.graph.node:
        _check_node(node)
    for tensor in (*model.graph.initializer, *_tensors(model.graph.node)):
        _check_tensor(tensor, len(graph))


def _check_node(node: Any) -> None:
    if (node.domain, node.op_type) not in ALLOWED_OPERATORS:
        names = ", ".join(name for _, name in sorted(ALLOWED_OPERATORS))
        raise BundleError(f"has the operator {node.op_type!r} of {node.domain or 'ai.onnx'!r}; allowed: {names}")
    for attribute in node.attribute:
        if attribute.HasField("g") or attribute.graphs or attribute.HasField("sparse") or attribute.sparses:
            raise BundleError(f"has a node {node.op_type} with a graph or a sparse tensor of its own")
    if node.op_type == TREE_OPERATOR:
        _check_trees(node)


def _check_trees(node: Any) -> None:
    """Refuse trees that are none: in a circle no row comes to an end. Raises BundleError."""
    found = {attribute.name: attribute for attribute in node.attribute}
    parts = ("treeids", "nodeids", "truenodeids", "falsenodeids")
    numbers = [np.array(found[f"nodes_{part}"].ints if f"nodes_{part}" in found else (), dtype=np.int64) for part in parts]
    modes = found["nodes_modes"].strings if "nodes_modes" in found else ()
    if len(found) < len(node.attribute) or {len(modes), *map(len, numbers)} != {len(modes)}:
        raise BundleError("has trees with an attribute twice, or not as many of each part of a node")
    tree, name, true, false = numbers
    inner, first = np.array([mode != b"LEAF" for mode in modes], dtype=bool), np.diff(tree, prepend=tree[:1] - 1) != 0
    entered = np.concatenate((name[first], true[inner], false[inner]))
    if _has_duplicates(tree, name) or _has_duplicates(np.concatenate((tree[first], tree[inner], tree[inner])), entered):
        raise BundleError("has a tree with a node that is there twice, or that has two parents, or one where it is the first")


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
        raise BundleError("has numbers in another file; allowed: in the graph itself")
    if any(length < 0 for length in tensor.dims) or math.prod(tensor.dims) > size:
        raise BundleError(f"has a tensor of shape {tuple(tensor.dims)}, which a file of {size} bytes cannot hold")
