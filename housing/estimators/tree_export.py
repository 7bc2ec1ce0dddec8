"""Export of boosted trees to ONNX, for libraries whose converters fail or round a threshold to the wrong side of a value.

Trees are fitted on columns in float32 (`as_fitted`), and thresholds are rounded down to float32. So each row takes the same
branches in ONNX as in the library.
"""

# pylint: disable=protected-access  # docs/reference/private-apis.md
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.schema.column import Vector

LARGEST = float(np.nextafter(np.float32(np.inf), np.float32(0)))
HISTOGRAM_SUMS = ("squared_error", "absolute_error", "quantile")
LIGHTGBM_SUMS = ("regression", "regression_l1", "huber", "fair", "quantile", "mape")


@dataclass(frozen=True)
class Tree:
    """The nodes of one tree. Node 0 is the root.

    Attributes
    ----------
    features, thresholds
        A value of at most the threshold goes to the left child. Ignored for leaves.
    left, right
        Indices of the children.
    missing_goes_left
        Whether NaN goes to the left child.
    is_leaf, values
        Which nodes are leaves, and their predictions.
    """

    features: NDArray[np.int64]
    thresholds: Vector
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    missing_goes_left: NDArray[np.bool_]
    is_leaf: NDArray[np.bool_]
    values: Vector


def _to_tree_ensemble(trees: Sequence[Tree], n_features: int, base: float) -> Any:
    """Return an ONNX model that adds the trees and a constant."""
    from onnx import TensorProto, helper  # pylint: disable=import-outside-toplevel  # takes seconds to import

    is_leaf = np.concatenate([tree.is_leaf for tree in trees])
    tree_ids = np.repeat(np.arange(len(trees)), [len(tree.is_leaf) for tree in trees])
    node_ids = np.concatenate([np.arange(len(tree.is_leaf)) for tree in trees])

    def of_inner(values: Iterable[NDArray[Any]]) -> list[Any]:
        return np.where(is_leaf, 0, np.concatenate(list(values))).tolist()

    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["columns"],
        ["predictions"],
        domain="ai.onnx.ml",
        n_targets=1,
        base_values=[base],
        nodes_treeids=tree_ids.tolist(),
        nodes_nodeids=node_ids.tolist(),
        nodes_featureids=of_inner(tree.features for tree in trees),
        nodes_modes=np.where(is_leaf, "LEAF", "BRANCH_LEQ").tolist(),
        nodes_values=_round_down(np.array(of_inner(tree.thresholds for tree in trees))).tolist(),
        nodes_truenodeids=of_inner(tree.left for tree in trees),
        nodes_falsenodeids=of_inner(tree.right for tree in trees),
        nodes_missing_value_tracks_true=of_inner(tree.missing_goes_left for tree in trees),
        target_ids=[0] * int(is_leaf.sum()),
        target_treeids=tree_ids[is_leaf].tolist(),
        target_nodeids=node_ids[is_leaf].tolist(),
        target_weights=np.concatenate([tree.values for tree in trees])[is_leaf].tolist(),
    )
    columns = helper.make_tensor_value_info("columns", TensorProto.FLOAT, [None, n_features])
    predictions = helper.make_tensor_value_info("predictions", TensorProto.FLOAT, [None, 1])
    graph = helper.make_graph([node], "trees", [columns], [predictions])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("ai.onnx.ml", 3)], ir_version=8)


def _round_down(thresholds: Vector) -> NDArray[np.float32]:
    """Return the largest float32 that is not above each threshold; infinity becomes the largest finite number."""
    rounded = np.clip(thresholds, -LARGEST, LARGEST).astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def histogram_boosting_to_onnx(estimator: Any, n_features: int) -> Any:
    """Return the ONNX model of a HistGradientBoostingRegressor.

    Raises
    ------
    ConfigError
        If it predicts something other than a sum of trees of numbers.
    """
    if estimator.loss not in HISTOGRAM_SUMS:
        raise ConfigError(
            f"model.estimator.loss must be {', '.join(HISTOGRAM_SUMS)} (got {estimator.loss}): others transform the sum of trees"
        )
    nodes = [predictor.nodes for (predictor,) in estimator._predictors]
    if any(tree["is_categorical"].any() for tree in nodes):
        raise ConfigError("model.estimator.categorical_features must be null: the features encode categories as numbers already")
    trees = [
        Tree(
            tree["feature_idx"],
            tree["num_threshold"],
            tree["left"].astype(np.int64),
            tree["right"].astype(np.int64),
            tree["missing_go_to_left"].astype(bool),
            tree["is_leaf"].astype(bool),
            tree["value"],
        )
        for tree in nodes
    ]
    return _to_tree_ensemble(trees, n_features, float(estimator._baseline_prediction.item()))


def lightgbm_to_onnx(estimator: Any, n_features: int) -> Any:
    """Return the ONNX model of an LGBMRegressor, up to its best iteration.

    Raises
    ------
    ConfigError
        If it predicts something other than a sum of trees of numbers.
    """
    model = estimator.booster_.dump_model()
    objective = model["objective"].split()[0]
    if model["average_output"] or objective not in LIGHTGBM_SUMS:
        raise ConfigError(
            f"model.estimator.objective must be {', '.join(LIGHTGBM_SUMS)}, and boosting_type must not be rf (got {objective}):"
            " others transform the sum of trees"
        )
    return _to_tree_ensemble([_lightgbm_tree(tree["tree_structure"]) for tree in model["tree_info"]], n_features, base=0.0)


def _lightgbm_tree(root: dict[str, Any]) -> Tree:
    """Return a tree with its nodes in breadth-first order."""
    nodes, left, right = [root], [], []
    for node in nodes:  # the list grows while it is read
        is_leaf = "left_child" not in node
        left.append(len(nodes))
        right.append(len(nodes) + 1)
        if not is_leaf:
            nodes += [node["left_child"], node["right_child"]]
    if any(node.get("decision_type", "<=") != "<=" or node.get("missing_type") == "Zero" for node in nodes):
        raise ConfigError(
            "model.estimator.categorical_feature and zero_as_missing must be unset: features encode categories as numbers already"
        )
    return Tree(
        np.array([node.get("split_feature", 0) for node in nodes]),
        np.array([node.get("threshold", 0.0) for node in nodes]),
        np.array(left),
        np.array(right),
        np.array([_missing_goes_left(node) for node in nodes]),
        np.array(["left_child" not in node for node in nodes]),
        np.array([node.get("leaf_value", 0.0) for node in nodes], dtype=np.float64),
    )


def _missing_goes_left(node: dict[str, Any]) -> bool:
    """Return where NaN goes. LightGBM reads it as 0 if the training rows have no missing value in the column."""
    if node.get("missing_type") == "NaN":
        return bool(node["default_left"])
    return bool(node.get("threshold", 0.0) >= 0)
