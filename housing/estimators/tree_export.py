"""Export of the trees of each library to ONNX.

The libraries' converters take seconds for a thousand trees, since they write node by node. Those of some libraries fail, or round
a threshold to the wrong side of a value. Trees are fitted on columns in float32 (`as_fitted`), and thresholds are rounded down
to float32. So each row takes the same branches in ONNX as in the library.
"""

# pylint: disable=protected-access  # docs/reference/private-apis.md
import json
import math
from typing import Any

import numpy as np

from housing.core.errors import ConfigError
from housing.estimators.tree_graph import BELOW, Tree, to_tree_ensemble

HISTOGRAM_SUMS = ("squared_error", "absolute_error", "quantile")
XGBOOST_SUMS = ("reg:squarederror", "reg:squaredlogerror", "reg:pseudohubererror", "reg:absoluteerror", "reg:quantileerror")
LIGHTGBM_SUMS = ("regression", "regression_l1", "huber", "fair", "quantile", "mape")


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
    return to_tree_ensemble(trees, n_features, float(estimator._baseline_prediction.item()))


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
    return to_tree_ensemble([_lightgbm_tree(tree["tree_structure"]) for tree in model["tree_info"]], n_features, base=0.0)


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


def booster_bytes(estimator: Any, file_format: str = "ubj") -> bytes:
    """Return the model of an estimator of XGBoost in one of XGBoost's own formats, up to its best iteration."""
    booster = estimator.get_booster()
    best_iteration = getattr(estimator, "best_iteration", None)  # an attribute only after early stopping
    return bytes((booster if best_iteration is None else booster[: best_iteration + 1]).save_raw(file_format))


def xgboost_to_onnx(estimator: Any, n_features: int) -> Any | None:
    """Return the ONNX model of an XGBRegressor, or None if it predicts something other than a sum of trees of numbers."""
    learner = json.loads(booster_bytes(estimator, "json"))["learner"]
    booster, parameters = learner["gradient_booster"], learner["learner_model_param"]
    is_dart = booster["name"] == "dart"  # a weighted sum: trees that were dropped while others were fitted count for less
    is_sum = (
        booster["name"] in ("gbtree", "dart") and learner["objective"]["name"] in XGBOOST_SUMS and parameters["num_target"] == "1"
    )
    if not (is_sum and math.isnan(estimator.missing)):
        return None
    trees = (booster["gbtree"] if is_dart else booster)["model"]["trees"]
    weights = booster["weight_drop"] if is_dart else [1] * len(trees)
    if any(any(tree["split_type"]) for tree in trees):
        return None
    (base,) = json.loads(parameters["base_score"])
    weighted = [_xgboost_tree(tree, np.float32(weight)) for tree, weight in zip(trees, weights, strict=True)]
    return to_tree_ensemble(weighted, n_features, base, BELOW)


def _xgboost_tree(tree: dict[str, Any], weight: np.float32) -> Tree:
    """Return a tree times a weight, without the nodes that XGBoost has pruned, which stay in its arrays."""
    names = ("left_children", "right_children", "parents", "split_indices")
    left, right, parents, features = (np.array(tree[name], dtype=np.int64) for name in names)
    node = np.arange(len(left))
    parents[0] = 0
    is_used = (node == 0) | (left[parents] == node) | (right[parents] == node)
    position = np.cumsum(is_used) - 1
    thresholds = np.array(tree["split_conditions"], dtype=np.float32)[is_used]
    return Tree(
        features[is_used],
        thresholds,
        position[left[is_used]],
        position[right[is_used]],
        np.array(tree["default_left"], dtype=bool)[is_used],
        left[is_used] == -1,
        thresholds * weight,  # of a leaf: its prediction
    )


def forest_to_onnx(estimator: Any, n_features: int) -> Any:
    """Return the ONNX model of a random forest, of extremely randomized trees or of a single tree of scikit-learn."""
    estimators = getattr(estimator, "estimators_", [estimator])
    trees = [
        Tree(
            tree.feature,
            tree.threshold,
            tree.children_left,
            tree.children_right,
            tree.missing_go_to_left.astype(bool),
            tree.children_left == -1,
            tree.value.reshape(-1) * (1.0 / len(estimators)),
        )
        for tree in (fitted.tree_ for fitted in estimators)
    ]
    return to_tree_ensemble(trees, n_features, base=0.0)
