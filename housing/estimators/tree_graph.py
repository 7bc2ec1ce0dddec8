"""ONNX graphs of tree ensembles: the sum of regression trees and a constant."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from housing.bundle.onnx_reader import ML_DOMAIN, TREE_OPERATOR

LARGEST = float(np.nextafter(np.float32(np.inf), np.float32(0)))
AT_MOST, BELOW = "BRANCH_LEQ", "BRANCH_LT"  # the values that go to the left child, compared with the threshold


@dataclass(frozen=True)
class Tree:
    """The nodes of one tree. Node 0 is the root.

    Attributes
    ----------
    features, thresholds
        Lower values than the threshold of a node go to its left child. Ignored for leaves.
    left, right
        Indices of the children.
    missing_goes_left
        Whether NaN goes to the left child.
    is_leaf, values
        Which nodes are leaves, and their predictions.
    """

    features: NDArray[np.integer[Any]]
    thresholds: NDArray[np.floating[Any]]
    left: NDArray[np.integer[Any]]
    right: NDArray[np.integer[Any]]
    missing_goes_left: NDArray[np.bool_]
    is_leaf: NDArray[np.bool_]
    values: NDArray[np.floating[Any]]


def to_tree_ensemble(trees: Sequence[Tree], n_features: int, base: float, comparison: str = AT_MOST) -> Any:
    """Return an ONNX model that adds the trees and a constant.

    A value equal to a threshold goes left if the comparison is `AT_MOST`, and right if it is `BELOW`.
    """
    from onnx import TensorProto, helper  # pylint: disable=import-outside-toplevel  # takes seconds to import

    sizes = [len(tree.is_leaf) for tree in trees]
    is_leaf = np.concatenate([tree.is_leaf for tree in trees])
    tree_ids = np.repeat(np.arange(len(trees)), sizes)
    node_ids = np.concatenate([np.arange(size) for size in sizes])

    def of_inner(values_of_trees: Iterable[NDArray[Any]]) -> NDArray[Any]:
        values = np.concatenate(list(values_of_trees))
        return np.where(is_leaf, values.dtype.type(0), values)

    thresholds, weights = of_inner(tree.thresholds for tree in trees), np.concatenate([tree.values for tree in trees])[is_leaf]
    attributes = {
        "nodes_treeids": tree_ids,
        "nodes_nodeids": node_ids,
        "nodes_featureids": of_inner(tree.features for tree in trees),
        "nodes_truenodeids": of_inner(tree.left for tree in trees),
        "nodes_falsenodeids": of_inner(tree.right for tree in trees),
        "nodes_missing_value_tracks_true": of_inner(tree.missing_goes_left for tree in trees).astype(int),
        "nodes_modes": np.where(is_leaf, b"LEAF", comparison.encode()),
        "nodes_values": _round_down(thresholds) if comparison == AT_MOST else thresholds,
        "target_treeids": tree_ids[is_leaf],
        "target_nodeids": node_ids[is_leaf],
        "target_ids": np.zeros(len(weights), dtype=int),
        "target_weights": weights,
    }
    node = helper.make_node(TREE_OPERATOR, ["columns"], ["predictions"], domain=ML_DOMAIN, n_targets=1, base_values=[base])
    node.attribute.extend(_attribute(name, values) for name, values in attributes.items())
    columns = helper.make_tensor_value_info("columns", TensorProto.FLOAT, [None, n_features])
    predictions = helper.make_tensor_value_info("predictions", TensorProto.FLOAT, [None, 1])
    graph = helper.make_graph([node], "trees", [columns], [predictions])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(ML_DOMAIN, 3)], ir_version=8)


def _round_down(thresholds: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return the largest float32 that is not above each threshold; infinity becomes the largest finite number.

    Columns in float32 take the same branches by these thresholds as by those in float64.
    """
    rounded = np.clip(thresholds, -LARGEST, LARGEST).astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def _attribute(name: str, values: NDArray[Any]) -> Any:
    """Return a list of values as an attribute. `helper.make_attribute` checks each of them, which takes several times as long."""
    from onnx import AttributeProto  # pylint: disable=import-outside-toplevel,no-name-in-module  # takes seconds to import

    kind = {"i": "ints", "f": "floats", "S": "strings"}[values.dtype.kind]
    return AttributeProto(name=name, type=AttributeProto.AttributeType.Value(kind.upper()), **{kind: values.tolist()})
