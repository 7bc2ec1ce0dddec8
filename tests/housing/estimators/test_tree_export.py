"""Export of trees: predictions are bit-identical to those of the graphs that the libraries' converters write."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnxmltools import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from skl2onnx import to_onnx as convert_sklearn
from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
from sklearn.tree import DecisionTreeRegressor
from xgboost import XGBRegressor, XGBRFRegressor

from housing.bundle.onnx_model import OnnxModel, OnnxRuntimeModel
from housing.estimators.boosting import as_fitted
from housing.estimators.onnx_export import to_onnx
from housing.estimators.tree_export import booster_bytes
from housing.schema.column import Matrix, Vector

COLUMNS = 6


def rows(count: int, seed: int, *, missing: bool) -> tuple[Matrix, Vector]:
    """Return rows in float32 precision, one of whose columns has few values, and targets above 0."""
    random = np.random.default_rng(seed)
    columns = random.normal(size=(count, COLUMNS)).astype(np.float32).astype(np.float64)
    columns[:, 5] = random.integers(0, 3, count)
    target = np.abs(columns[:, 0] + columns[:, 1] ** 2 * np.sin(columns[:, 2])) + 1
    if missing:
        columns[random.random(columns.shape) < 0.2] = np.nan
    return columns, target


def fitted(estimator: Any, *, missing: bool) -> Any:
    """Return the estimator, fitted."""
    columns, target = rows(800, 0, missing=missing)
    if getattr(estimator, "early_stopping_rounds", None):
        return estimator.fit(columns[:600], target[:600], eval_set=[(columns[600:], target[600:])], verbose=False)
    return estimator.fit(columns, target)


def converted(estimator: Any) -> bytes:
    """Return the graph that the library's converter writes."""
    if isinstance(estimator, XGBRegressor):
        return convert_xgboost(estimator, initial_types=[("columns", FloatTensorType([None, COLUMNS]))]).SerializeToString()
    return convert_sklearn(estimator, np.zeros((1, COLUMNS), dtype=np.float32)).SerializeToString()


@pytest.mark.parametrize(
    "create",
    [
        lambda: XGBRegressor(n_estimators=200, max_depth=7, random_state=0),
        lambda: XGBRegressor(n_estimators=900, early_stopping_rounds=5, random_state=0),
        lambda: XGBRegressor(n_estimators=60, gamma=1.0, tree_method="exact", base_score=3.0),  # with pruned nodes
        lambda: XGBRegressor(n_estimators=60, objective="reg:absoluteerror"),
        lambda: XGBRegressor(n_estimators=60, objective="count:poisson"),  # left to the converter
        lambda: ExtraTreesRegressor(60, random_state=0),
        lambda: RandomForestRegressor(60, min_samples_leaf=3, random_state=0),
        lambda: DecisionTreeRegressor(random_state=0),
    ],
)
@pytest.mark.parametrize("missing", [False, True])
def test_predictions_are_bit_identical_to_those_of_the_converter(create: Callable[[], Any], missing: bool) -> None:
    estimator = create()
    missing = missing and isinstance(estimator, XGBRegressor)  # skl2onnx loses where missing values go
    estimator = fitted(estimator, missing=missing)
    columns, _ = rows(3000, 1, missing=missing)
    graph = to_onnx(estimator, COLUMNS)
    predictions = OnnxRuntimeModel(graph).predict(columns)
    assert predictions.tobytes() == OnnxRuntimeModel(converted(estimator)).predict(columns).tobytes()
    assert OnnxModel(graph).predict(columns).tobytes() == predictions.tobytes()


@pytest.mark.parametrize("create", [RandomForestRegressor, ExtraTreesRegressor, DecisionTreeRegressor, XGBRFRegressor])
def test_exports_that_the_converters_get_wrong_predict_like_the_estimator(create: Callable[..., Any]) -> None:
    """skl2onnx forgets where missing values go, and onnxmltools takes the first trees of a forest alone."""
    arguments = {} if create is DecisionTreeRegressor else {"n_estimators": 20}
    estimator = fitted(create(max_depth=6, random_state=0, **arguments), missing=True)
    columns, _ = rows(3000, 1, missing=True)
    expected = np.asarray(estimator.predict(as_fitted(estimator, columns)), dtype=np.float64)
    np.testing.assert_allclose(OnnxModel(to_onnx(estimator, COLUMNS)).predict(columns), expected, rtol=1e-5)


def test_pruned_nodes_are_left_out() -> None:
    estimator = fitted(XGBRegressor(n_estimators=5, gamma=1.0, tree_method="exact"), missing=True)
    trees = json.loads(booster_bytes(estimator, "json"))["learner"]["gradient_booster"]["model"]["trees"]
    deleted = sum(int(tree["tree_param"]["num_deleted"]) for tree in trees)
    nodes = sum(len(tree["left_children"]) for tree in trees)
    assert deleted > 0
    assert to_onnx(estimator, COLUMNS).count(b"BRANCH_LT") + to_onnx(estimator, COLUMNS).count(b"LEAF") == nodes - deleted


@pytest.mark.parametrize("patience", [None, 5])
def test_trees_of_dart_count_with_their_weights(patience: int | None) -> None:
    estimator = XGBRegressor(
        booster="dart", n_estimators=40, max_depth=4, rate_drop=0.3, early_stopping_rounds=patience, random_state=0
    )
    estimator = fitted(estimator, missing=True)
    columns, _ = rows(3000, 1, missing=True)
    expected = np.asarray(estimator.predict(as_fitted(estimator, columns)), dtype=np.float64)
    np.testing.assert_allclose(OnnxModel(to_onnx(estimator, COLUMNS)).predict(columns), expected, rtol=1e-5)
    weights = json.loads(booster_bytes(estimator, "json"))["learner"]["gradient_booster"]["weight_drop"]
    assert min(weights) < max(weights)
