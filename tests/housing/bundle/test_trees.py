"""The tree walker: its predictions are bit-identical to ONNX Runtime, and unsupported graphs run in ONNX Runtime."""

import functools
import importlib.util
import operator
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from onnx import TensorProto, helper
from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
from sklearn.tree import DecisionTreeRegressor
from xgboost import XGBRegressor

from housing.bundle import onnx_reader, quick_scorer
from housing.bundle.bundle import Bundle
from housing.bundle.onnx_model import OnnxModel, OnnxRuntimeModel, VerifiedOnnxModel
from housing.bundle.quick_scorer import COLUMN, MAX_BOUNDS, MAX_LEAVES, SMALL_TREE, TEST
from housing.bundle.trees import NODE, TREE, Arrays, Trees
from housing.core.config import CONF
from housing.core.environment import PROJECT
from housing.core.errors import BundleError
from housing.data.split import split
from housing.data.table import Table
from housing.estimators.onnx_export import to_onnx
from housing.schema.column import Matrix
from housing.serving.verification import verify
from housing.training.build import BuildSettings, build
from tests.housing.bundle.test_bundle import rewrite_checksums
from tests.support.tables import SMALL, config, require_library

walker = pytest.importorskip("housing.bundle.tree_walker", reason="the tree walker is not compiled: no C compiler")

COLUMNS = 5
LARGEST = float(np.nextafter(np.float32(np.inf), np.float32(0)))
EDGE_VALUES = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 1e-310, 1e300, -1e300, LARGEST, -LARGEST)
LARGER_BLOCKS = (1, 2, 3, 15, 16, 17, 31, 127, 128, 129, 255, 256, 257, 261, 1000, 4099)


def fitted_graph(estimator: Any, missing: bool = False) -> bytes:
    """Fit an estimator and return its graph."""
    random = np.random.default_rng(0)
    columns = random.normal(size=(700, COLUMNS))
    target = columns[:, 0] + columns[:, 1] ** 2 * np.sin(columns[:, 2])
    columns[:, 3:] = random.integers(0, 2, (700, 2))  # like one-hot columns of a category
    if missing:
        columns[random.random(columns.shape) < 0.2] = np.nan
    return to_onnx(estimator.fit(columns, target), COLUMNS)


def attributes(graph: bytes) -> dict[str, Any]:
    """Return the attributes of the first node of a graph: its trees."""
    node, *_ = onnx.load_from_string(graph).graph.node
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def rows(count: int, width: int, graph: bytes) -> Matrix:
    """Return rows with values at and beside thresholds, missing values, and edge cases of float32."""
    random = np.random.default_rng(count)
    thresholds = np.array([*attributes(graph)["nodes_values"], 0.0], dtype=np.float32)
    values = random.normal(size=(count, width)) * random.choice([0.1, 1, 100], (count, 1))
    at_thresholds = random.choice(thresholds, values.shape)
    with np.errstate(over="ignore"):
        beside = np.nextafter(at_thresholds, random.choice(np.array([-np.inf, np.inf], dtype=np.float32), values.shape))
    for special in (
        at_thresholds,
        beside,
        np.nextafter(at_thresholds.astype(float), np.inf),
        random.choice(EDGE_VALUES, values.shape),
    ):
        values = np.where(random.random(values.shape) < 0.15, special, values)
    return values


def read(graph: bytes) -> Trees | None:
    """Return the trees of a graph, or None if the walker cannot run it."""
    return Trees.from_model(onnx_reader.read_model(graph))


def assert_bit_identical(graph: bytes, width: int, counts: tuple[int, ...] = LARGER_BLOCKS) -> None:
    """Compare the tree walker with ONNX Runtime for several numbers of rows."""
    trees, session = read(graph), OnnxRuntimeModel(graph)
    assert trees is not None
    for count in counts:
        columns = rows(count, width, graph)
        with np.errstate(over="ignore"):
            expected = session.predict(columns)
        np.testing.assert_array_equal(trees.predict(columns).view(np.int64), expected.view(np.int64))


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(
    "parameters", [{"max_depth": 6}, {"max_depth": 1}, {"max_depth": 9, "grow_policy": "lossguide"}], ids=str
)
def test_boosted_trees_are_bit_identical(parameters: dict[str, Any], missing: bool) -> None:
    assert_bit_identical(fitted_graph(XGBRegressor(n_estimators=70, **parameters), missing), COLUMNS)


@pytest.mark.parametrize("n_leaves", [2, 3, 31, 32, 33, 63, 64, 65, 100])
def test_trees_of_any_number_of_leaves_are_bit_identical(n_leaves: int) -> None:
    forest = RandomForestRegressor(9, max_leaf_nodes=n_leaves, random_state=0)
    assert_bit_identical(fitted_graph(forest), COLUMNS, counts=(*range(1, 40), 63, 64, 65, 127, 128, 129, 300))


def test_more_thresholds_than_a_byte_can_number_are_bit_identical() -> None:
    graph = fitted_graph(RandomForestRegressor(60, max_leaf_nodes=64, random_state=0), missing=True)
    thresholds = np.unique(np.array(attributes(graph)["nodes_values"], dtype=np.float32))
    assert len(thresholds) > 3 * MAX_BOUNDS
    assert_bit_identical(graph, COLUMNS)


def test_trees_with_too_many_thresholds_are_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_scorer, "MAX_CODES", COLUMNS - 1)
    assert_bit_identical(fitted_graph(RandomForestRegressor(9, max_leaf_nodes=64, random_state=0)), COLUMNS)


def test_trees_of_more_columns_than_a_test_can_name_are_walked() -> None:
    nodes = np.zeros(3 * 70_000, dtype=NODE)
    roots = np.arange(0, len(nodes), 3)
    nodes["threshold"], nodes["left"] = np.nan, np.arange(len(nodes))
    nodes["threshold"][roots], nodes["left"][roots], nodes["feature"][roots] = 0.5, roots + 1, roots // 3
    assert not quick_scorer.build_scorer(nodes, roots).small_trees["groups"].any()
    assert quick_scorer.build_scorer(nodes[:3000], roots[:1000]).small_trees["groups"].all()


@pytest.mark.parametrize(
    "estimator",
    [
        DecisionTreeRegressor(min_samples_leaf=3),
        DecisionTreeRegressor(max_depth=1),
        DecisionTreeRegressor(min_samples_leaf=700),
        RandomForestRegressor(37, max_features=0.4),
        RandomForestRegressor(1),
        ExtraTreesRegressor(20, min_samples_leaf=3),
    ],
    ids=str,
)
def test_trees_of_scikit_learn_are_bit_identical(estimator: Any) -> None:
    assert_bit_identical(fitted_graph(estimator), COLUMNS)


def shrink(node: Any) -> None:
    """Make all estimators of a config small."""
    if isinstance(node, DictConfig):
        for rounds in {"iterations", "max_iter", "n_estimators"} & node.keys():
            node[rounds] = 9
        for name in node:
            shrink(None if OmegaConf.is_missing(node, name) else node[name])


WITHOUT_TREES = ("model=knn", "model=linear", "model=neural", "model=ridge", "model=svr")
NEEDS_TEACHER = "model=distilled"  # without the teacher, it is model=xgboost
ALL_PRESETS = [f"{group}={path.stem}" for group in ("model", "experiment") for path in sorted(Path(CONF, group).glob("*.yaml"))]
PRESETS = [preset for preset in ALL_PRESETS if preset != NEEDS_TEACHER]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_graph_of_every_preset_is_bit_identical(towns: Table, tmp_path: Path, preset: str) -> None:
    require_library(preset.removeprefix("model="))
    changes = SMALL[config("train", "data=towns", preset).features.name]
    cfg = config("train", "data=towns", preset, *changes)
    shrink(cfg)
    bundle, _ = build(BuildSettings.from_config(cfg), towns, split(towns, cfg.split), run_id="none")
    bundle.write(tmp_path / "bundle")
    verified = Bundle.read(tmp_path / "bundle", VerifiedOnnxModel)
    verified.predict_with_interval(towns.matrix)
    for graph in graphs(verified):
        assert graph.uses_tree_walker == (preset not in WITHOUT_TREES or graph is verified.interval.error_model)  # type: ignore[union-attr]
        if graph.uses_tree_walker:
            width = OnnxRuntimeModel(graph.graph)._session.get_inputs()[0].shape[1]  # pylint: disable=protected-access
            assert_bit_identical(graph.graph, width, counts=(1, 33))


def graphs(bundle: Bundle) -> Iterator[OnnxModel]:
    """Yield all graphs of a bundle."""
    for estimator in (*(member.estimator for member in bundle.ensemble.members), bundle.interval and bundle.interval.error_model):
        if estimator is not None:
            assert isinstance(estimator, OnnxModel)
            yield estimator


# a missing root of three levels, and a tree of a single leaf
Changes = dict[str, Any]
TREE_ATTRIBUTES: Changes = {
    "n_targets": 1,
    "nodes_treeids": [0, 0, 0, 0, 0, 4],
    "nodes_nodeids": [0, 1, 2, 3, 4, 0],
    "nodes_featureids": [0, 0, 4, 0, 0, 0],
    "nodes_modes": ["BRANCH_LT", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF", "LEAF"],
    "nodes_values": [1.0, 0.0, 2.0, 0.0, 0.0, 0.0],
    "nodes_truenodeids": [1, 0, 3, 0, 0, 0],
    "nodes_falsenodeids": [2, 0, 4, 0, 0, 0],
    "nodes_missing_value_tracks_true": [1, 0, 0, 0, 0, 0],
    "target_ids": [0, 0, 0, 0],
    "target_nodeids": [1, 3, 4, 0],
    "target_treeids": [0, 0, 0, 4],
    "target_weights": [0.1, 0.2, 0.3, 0.7],
}


def tree_model(*changes: Changes, kind: int = TensorProto.FLOAT, shape: tuple[Any, ...] = (None, COLUMNS)) -> onnx.ModelProto:
    """Return a graph of two trees with changed attributes. None removes an attribute."""
    node_attributes = {
        name: value for name, value in functools.reduce(operator.or_, changes, TREE_ATTRIBUTES).items() if value is not None
    }
    node = helper.make_node("TreeEnsembleRegressor", ["columns"], ["y"], domain="ai.onnx.ml", **node_attributes)
    graph_input = helper.make_tensor_value_info("columns", kind, shape)
    graph_output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])
    versions = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(
        helper.make_graph([node], "trees", [graph_input], [graph_output]), opset_imports=versions, ir_version=8
    )


def change(name: str, index: int, value: Any) -> Changes:
    """Return an attribute with a changed value."""
    return {name: [*TREE_ATTRIBUTES[name][:index], value, *TREE_ATTRIBUTES[name][index + 1 :]]}


MODES = ["BRANCH_LT", "BRANCH_LEQ", "BRANCH_GT", "BRANCH_GTE"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("threshold", [0.0, -0.0, 1e-45, -1e-45, LARGEST, -LARGEST, 1.5])
@pytest.mark.parametrize("tracks", [0, 1])
def test_values_at_a_threshold_take_the_same_branch_as_in_onnx_runtime(mode: str, threshold: float, tracks: int) -> None:
    changes = change("nodes_modes", 0, mode), change("nodes_values", 0, threshold)
    graph = tree_model(*changes, change("nodes_missing_value_tracks_true", 0, tracks)).SerializeToString()
    assert_bit_identical(graph, COLUMNS)
    columns = np.zeros((len(EDGE_VALUES) + 3, COLUMNS))
    columns[:, 0] = [*EDGE_VALUES, threshold, np.nextafter(np.float32(threshold), np.float32(1)), np.nextafter(threshold, -1)]
    trees = read(graph)
    assert trees is not None
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(trees.predict(columns), OnnxRuntimeModel(graph).predict(columns))


@pytest.mark.parametrize(
    "changes",
    [
        {"base_values": [0.5]},
        {"nodes_missing_value_tracks_true": None},
        {"post_transform": "NONE", "aggregate_function": "SUM"},
        {"nodes_hitrates": [1.0] * 6},
        {"target_weights": [-0.0] * 4, "base_values": [-0.0]},
        {"target_weights": [LARGEST, LARGEST, -LARGEST, LARGEST]},
        {"nodes_treeids": [4] * 5 + [0], "target_treeids": [4, 4, 4, 0]},
        {"target_nodeids": [0, 4, 3, 1], "target_treeids": [4, 0, 0, 0]},
    ],
    ids=str,
)
def test_other_spellings_of_plain_trees_are_supported(changes: dict[str, Any]) -> None:
    assert_bit_identical(tree_model(changes).SerializeToString(), COLUMNS)


def test_an_identity_after_the_trees_changes_nothing() -> None:
    assert_bit_identical(with_identity(tree_model()).SerializeToString(), COLUMNS)


@pytest.mark.parametrize("seed", range(8))
def test_random_trees_with_every_comparison_are_bit_identical(seed: int) -> None:
    assert_bit_identical(random_model(np.random.default_rng(seed)).SerializeToString(), COLUMNS, counts=(1, 17, 300))


def random_model(random: np.random.Generator, n_trees: int = 21) -> onnx.ModelProto:
    """Return a graph of random trees, with random comparisons and tracks of missing values."""
    parts: Changes = {name: [] for name in TREE_ATTRIBUTES if name != "n_targets"}
    for tree in range(n_trees):
        append_random_tree(parts, tree, random)
    return tree_model(parts, {"base_values": [float(np.float32(random.normal()))]})


def append_random_tree(parts: Changes, tree: int, random: np.random.Generator) -> None:
    """Append the nodes of a random tree to attributes."""
    n_nodes, waiting = 1, [0]
    while waiting:
        node = waiting.pop(int(random.integers(len(waiting))))
        is_leaf = n_nodes > 40 or random.random() < 0.15
        children = [0, 0] if is_leaf else [int(child) for child in random.permutation([n_nodes, n_nodes + 1])]
        threshold = 0.0 if is_leaf else float(random.choice([random.normal(), *EDGE_VALUES[3:8], LARGEST, -LARGEST]))
        row = {
            "nodes_treeids": tree,
            "nodes_nodeids": node,
            "nodes_featureids": int(random.integers(COLUMNS)),
            "nodes_modes": "LEAF" if is_leaf else str(random.choice(MODES)),
            "nodes_values": threshold,
            "nodes_truenodeids": children[0],
            "nodes_falsenodeids": children[1],
            "nodes_missing_value_tracks_true": int(random.integers(2)),
        }
        if is_leaf:
            row |= {"target_ids": 0, "target_nodeids": node, "target_treeids": tree, "target_weights": random.normal()}
        else:
            n_nodes += 2
            waiting += children
        for name, value in row.items():
            parts[name].append(value)


CHAIN = 70
CHAIN_ATTRIBUTES: Changes = {
    "nodes_treeids": [0] * (2 * CHAIN + 1),
    "nodes_nodeids": list(range(2 * CHAIN + 1)),
    "nodes_featureids": [0] * (2 * CHAIN + 1),
    "nodes_modes": ["BRANCH_LT", "LEAF"] * CHAIN + ["LEAF"],
    "nodes_values": [1.0] * (2 * CHAIN + 1),
    "nodes_truenodeids": [index + 1 for index in range(2 * CHAIN + 1)],
    "nodes_falsenodeids": [index + 2 for index in range(2 * CHAIN + 1)],
    "nodes_missing_value_tracks_true": None,
    "target_ids": [0] * (CHAIN + 1),
    "target_nodeids": [*range(1, 2 * CHAIN, 2), 2 * CHAIN],
    "target_treeids": [0] * (CHAIN + 1),
    "target_weights": [1.0] * (CHAIN + 1),
}


def with_another_node(model: onnx.ModelProto) -> onnx.ModelProto:
    """Add a node that changes the sum."""
    model.graph.node[0].output[0] = "x"
    model.graph.node.append(helper.make_node("Add", ["x", "x"], ["y"]))
    return model


def with_identity(model: onnx.ModelProto, node_input: str = "x", op_type: str = "Identity", domain: str = "") -> onnx.ModelProto:
    """Add a node after the trees, as the converter of LightGBM does."""
    model.graph.node[0].output[0] = "x"
    model.graph.node.append(helper.make_node(op_type, [node_input], ["y"], domain=domain))
    return model


GREATER = change("nodes_modes", 0, "BRANCH_GT")
GREATER_AND_MALFORMED: list[tuple[Changes, ...]] = [
    (GREATER, change("nodes_truenodeids", 2, 0)),
    (GREATER, change("nodes_falsenodeids", 0, 0)),
    (GREATER, change("nodes_falsenodeids", 0, 1)),
    (GREATER, change("nodes_values", 0, np.inf)),
    (GREATER, change("nodes_featureids", 0, COLUMNS)),
]


def empty_models() -> Iterator[onnx.ModelProto]:
    """Yield graphs without nodes, without leaves, and without both."""
    for prefixes in (("nodes_",), ("target_",), ("nodes_", "target_")):
        model = tree_model()
        for attribute in model.graph.node[0].attribute:
            if attribute.name.startswith(prefixes):
                for field in ("ints", "floats", "strings"):
                    attribute.ClearField(field)
        yield model


@pytest.mark.parametrize(
    "model",
    [
        tree_model(change("nodes_truenodeids", 2, 0)),  # a cycle
        tree_model(change("nodes_truenodeids", 2, 2)),
        tree_model(change("nodes_falsenodeids", 2, 3)),  # the same child twice
        tree_model(change("nodes_falsenodeids", 2, 1)),  # two parents
        tree_model(change("nodes_truenodeids", 0, 5)),  # out of range
        tree_model(change("nodes_truenodeids", 0, -1)),
        tree_model(change("nodes_truenodeids", 0, 2**63 - 1)),
        tree_model(change("nodes_nodeids", 3, 2**40)),
        tree_model(change("nodes_treeids", 5, -(2**63))),
        tree_model({"nodes_treeids": [-1] * 6, "target_treeids": [-1] * 4}),
        tree_model(change("nodes_treeids", 5, 2**32), change("target_treeids", 3, 2**32)),
        tree_model(change("nodes_nodeids", 4, 3)),  # a duplicate
        tree_model(change("nodes_treeids", 1, 4)),  # a missing root in two parts
        tree_model(change("nodes_modes", 2, "LEAF")),  # nodes without a parent
        tree_model(change("nodes_featureids", 2, COLUMNS)),
        tree_model(change("nodes_featureids", 2, -1)),
        tree_model(change("nodes_featureids", 2, 2**32)),
        *(tree_model({name: value[:-1]}) for name, value in TREE_ATTRIBUTES.items() if name != "n_targets"),
        *(tree_model({name: None}) for name in TREE_ATTRIBUTES if name != "nodes_missing_value_tracks_true"),
        *empty_models(),
        tree_model(change("nodes_modes", 0, "BRANCH_EQ")),
        tree_model(change("nodes_modes", 0, "BRANCH_NEQ")),
        tree_model(change("nodes_values", 0, np.nan)),
        tree_model(change("nodes_values", 2, np.inf)),
        tree_model(change("nodes_missing_value_tracks_true", 0, 2)),
        tree_model(change("target_weights", 0, np.nan)),
        tree_model(change("target_weights", 0, -np.inf)),
        tree_model(change("target_ids", 0, 1)),
        tree_model(change("target_nodeids", 0, 3)),  # two weights for one leaf, none for another
        tree_model(change("target_nodeids", 0, 0)),  # a weight of a branch node
        tree_model(change("target_treeids", 3, 3)),
        tree_model({"n_targets": 2}),
        tree_model({"base_values": [1.0, 2.0]}),
        tree_model({"base_values": [np.inf]}),
        tree_model({"post_transform": "LOGISTIC"}),
        tree_model({"aggregate_function": "AVERAGE"}),
        tree_model({"nodes_values_as_tensor": helper.make_tensor("v", TensorProto.DOUBLE, [6], [0.0] * 6)}),
        tree_model(kind=TensorProto.DOUBLE),
        tree_model(kind=TensorProto.INT64),
        tree_model(shape=(1, COLUMNS)),
        tree_model(shape=(None, None)),
        tree_model(shape=(None, -5)),
        tree_model(shape=(None, 2**62)),
        tree_model(shape=(COLUMNS,)),
        tree_model(CHAIN_ATTRIBUTES),
        with_another_node(tree_model()),
        with_identity(tree_model(), node_input="columns"),  # the trees count for nothing
        with_identity(tree_model(), op_type="Add"),
        with_identity(tree_model(), domain="ai.onnx.ml"),
        *(tree_model(*changes) for changes in GREATER_AND_MALFORMED),
    ],
)
def test_unsupported_or_malformed_trees_are_not_read(model: onnx.ModelProto) -> None:
    assert read(tree_model().SerializeToString()) is not None
    assert read(model.SerializeToString()) is None


def test_bytes_that_are_no_graph_are_an_error() -> None:
    with pytest.raises(BundleError, match="is not an ONNX model"):
        OnnxModel(b"\xff" * 100)
    assert read(b"") is None


def test_trees_with_a_duplicate_attribute_are_not_read() -> None:
    model = tree_model()
    model.graph.node[0].attribute.append(model.graph.node[0].attribute[0])
    assert read(model.SerializeToString()) is None


def test_unsupported_trees_run_in_onnx_runtime() -> None:
    graph = OnnxModel(tree_model({"aggregate_function": "AVERAGE"}).SerializeToString())
    assert not graph.uses_tree_walker
    np.testing.assert_allclose(graph.predict(np.zeros((1, COLUMNS))), [(0.1 + 0.7) / 2], rtol=1e-6)


@pytest.mark.parametrize("shape", [(3, COLUMNS - 1), (3, COLUMNS + 1), (COLUMNS,)])
def test_an_input_of_another_shape_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"shape \(rows, {COLUMNS}\)"):
        OnnxModel(tree_model().SerializeToString()).predict(np.zeros(shape))


def test_rows_may_have_any_memory_layout() -> None:
    graph = OnnxModel(tree_model().SerializeToString())
    columns = rows(40, 2 * COLUMNS, graph.graph)
    for view in (columns[:, ::2], columns[::3, :COLUMNS], np.asfortranarray(columns[:, COLUMNS:]), columns[:0, :COLUMNS]):
        np.testing.assert_array_equal(graph.predict(view), graph.predict(view.copy(order="C")))


def packed(dtype: Any, *items: Any) -> bytes:
    """Return items in the binary format of the walker."""
    return np.array(list(items), dtype=dtype).tobytes()


def arrays(**changes: bytes) -> tuple[bytes, ...]:
    """Return the walker's arrays of a single leaf, which is scored with a test that always holds, with other arrays."""
    parts = {
        "nodes": packed(NODE, (np.nan, 0, 0, 1.0)),
        "trees": packed(TREE, (0, 0)),
        "small_trees": packed(SMALL_TREE, (0, 0, 1, [1, 0, 0, 0, 0, 0, 0, 0])),
        "tests": packed(TEST, (0, -127, -1)),
        "leaves": np.ones(MAX_LEAVES, dtype=np.float32).tobytes(),
        "columns": packed(COLUMN, (0, 0, 1)),
        "thresholds": packed(np.float32, 0.0),
    }
    return tuple((parts | changes).values())


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes": packed(NODE, (0.0, 0, 0, 0.0))},  # a missing child
        {"nodes": packed(NODE, (np.nan, 0, 1, 1.0))},
        {"nodes": packed(NODE, (0.0, 0, 2**32 - 1, 0.0), (np.nan, 0, 0, 1.0))},
        {"nodes": packed(NODE, (np.nan, 2, 0, 1.0))},  # a missing column
        {"nodes": packed(NODE)},
        {"trees": packed(TREE, (1, 0))},  # a missing root
        {"trees": packed(TREE, (0, 0), (0, 0))},  # more trees than small trees
        {"small_trees": packed(SMALL_TREE)},
        {"small_trees": packed(SMALL_TREE, (0, 0, 1, [2] + 7 * [0]))},  # a missing test
        {"small_trees": packed(SMALL_TREE, (2**32 - 1, 0, 1, [1] + 7 * [0]))},
        {"small_trees": packed(SMALL_TREE, (0, 1, 1, [1] + 7 * [0]))},  # missing leaves
        {"small_trees": packed(SMALL_TREE, (0, 2**32 - 1, 1, [1] + 7 * [0]))},
        {"small_trees": packed(SMALL_TREE, (0, 0, 9, [1] + 7 * [0]))},  # more groups than a tree can have
        {"leaves": np.ones(MAX_LEAVES - 1, dtype=np.float32).tobytes()},
        {"tests": packed(TEST, (1, -127, -1))},  # a missing code
        {"columns": packed(COLUMN)},
        {"columns": packed(COLUMN, (2, 0, 1))},  # a missing feature
        {"columns": packed(COLUMN, (0, 1, 1))},  # a missing threshold
        {"columns": packed(COLUMN, (0, 0, 2))},
        {"columns": packed(COLUMN, (0, 2**32 - 1, 1))},
        {"columns": packed(COLUMN, (0, 0, 0))},
        {"columns": packed(COLUMN, (0, 0, 2**32 - 1))},
        *({name: content[:-1]} for name, content in zip(Arrays._fields, arrays(), strict=True)),
    ],
)
def test_indices_out_of_range_are_an_error_of_the_walker(changes: dict[str, bytes]) -> None:
    walker.check(arrays(), 1)
    with pytest.raises(ValueError, match="out of range"):
        walker.check(arrays(**changes), 1)


@pytest.mark.parametrize("width", [0, -1, 2**40])
def test_a_number_of_columns_out_of_range_is_an_error_of_the_walker(width: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        walker.check(arrays(), width)


def test_arrays_of_another_number_or_type_are_an_error_of_the_walker() -> None:
    with pytest.raises(ValueError, match="arrays must be 7 bytes objects"):
        walker.check(arrays()[:-1], 1)
    with pytest.raises(TypeError):
        walker.check((*arrays()[:-1], None), 1)


@pytest.mark.skipif(not shutil.which("gcc"), reason="there is no gcc")
def test_processors_with_narrow_vectors_compute_the_same_bits(tmp_path: Path) -> None:
    suffix, include = sysconfig.get_config_var("EXT_SUFFIX"), sysconfig.get_path("include")
    built = tmp_path / f"tree_walker{suffix}"
    source = PROJECT / "housing/bundle/tree_walker.c"
    options = ["-O3", "-shared", "-fPIC", f"-I{include}", "-D__builtin_cpu_supports(name)=0"]
    subprocess.run(["gcc", *options, str(source), "-o", str(built)], check=True)
    other = import_file(built)
    for n_leaves in (2, 32, 64, 100):
        graph = fitted_graph(RandomForestRegressor(9, max_leaf_nodes=n_leaves, random_state=0))
        trees = read(graph)
        assert trees is not None
        for count in (1, 5, 16, 17, 33, 65, 129, 300):
            columns, sums = rows(count, COLUMNS, graph), np.empty(count)
            other.walk(*trees._walker_arguments, columns, sums)  # pylint: disable=protected-access
            np.testing.assert_array_equal(sums.view(np.int64), trees.predict(columns).view(np.int64))


def import_file(path: Path) -> ModuleType:
    """Import an extension module from its file."""
    spec = importlib.util.spec_from_file_location("tree_walker", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("columns", "sums", "width"),
    [
        (np.zeros(6), np.zeros(2), 2),
        (np.zeros(6), np.zeros(4), 2),
        (np.zeros(5), np.zeros(2), 2),
        (np.zeros(6, np.float32), np.zeros(3), 2),
        (np.zeros(6), np.zeros(3, np.float32), 2),
        (np.zeros(6), np.zeros(3), 0),
        (np.zeros(6), np.zeros(3), -2),
        (np.zeros(0), np.zeros(3), 2),
        (np.zeros(56, np.int8)[4:-4], np.zeros(3), 2),
    ],
)
def test_buffers_of_another_size_are_an_error_of_the_walker(columns: NDArray[Any], sums: NDArray[Any], width: int) -> None:
    with pytest.raises(ValueError, match=rf"must be float64 of shape \(rows, {width}\) and \(rows,\)"):
        walker.walk(arrays(), width, 0.0, columns, sums)


def test_the_walker_writes_only_into_the_sums() -> None:
    buffer = np.full(40, 7.0)
    walker.walk(arrays(), 2, 0.5, np.zeros((33, 2)), buffer[3:36])
    np.testing.assert_array_equal(buffer, [7.0] * 3 + [1.5] * 33 + [7.0] * 4)
    buffer.flags.writeable = False
    with pytest.raises((ValueError, BufferError, TypeError)):
        walker.walk(arrays(), 2, 0.0, np.zeros((40, 2)), buffer)


@pytest.mark.parametrize("count", [1, 40])
def test_a_difference_between_walker_and_onnx_runtime_is_an_error_of_a_verified_model(count: int) -> None:
    graph = VerifiedOnnxModel(tree_model().SerializeToString())
    columns = np.zeros((count, COLUMNS))
    graph.predict(columns)
    graph._engine = OnnxModel(tree_model(change("target_weights", 3, 0.70000005)).SerializeToString())._engine  # pylint: disable=protected-access
    with pytest.raises(BundleError, match="agree with ONNX Runtime in every bit"):
        graph.predict(columns)


def test_a_bundle_that_only_the_walker_can_run_fails_verification(bundle: Bundle, tmp_path: Path) -> None:
    bundle.write(tmp_path / "bundle")
    verify(tmp_path / "bundle", None, memory_mb=1000, seconds=60, n_rows=100)
    graph_file = tmp_path / "bundle" / "members/0/model.onnx"
    model = onnx.load(graph_file)
    model.opset_import[0].version = 99
    graph_file.write_bytes(model.SerializeToString())
    rewrite_checksums(tmp_path / "bundle")
    assert Bundle.read(tmp_path / "bundle").golden == bundle.golden
    with pytest.raises(BundleError, match="99"):
        verify(tmp_path / "bundle", None, memory_mb=1000, seconds=60, n_rows=100)


WITHOUT_WALKER = """
import sys
import sysconfig
sys.modules["housing.bundle.tree_walker"] = {module}
from pathlib import Path
from types import ModuleType
from housing.bundle.bundle import Bundle
bundle = Bundle.read(Path({folder!r}))
Bundle.read(Path({folder!r}))
outputs = bundle.predict_with_interval(bundle.schema.encode_records(bundle.golden["rows"]))
print([values.tolist() for values in outputs.values()], "onnxruntime" in sys.modules)
"""


def test_without_the_walker_predictions_are_equal_and_a_warning_is_printed_once(bundle: Bundle, tmp_path: Path) -> None:
    bundle.write(tmp_path / "bundle")
    results: list[Any] = []
    for module in ("None", "__import__('housing.bundle.tree_walker', fromlist=['walk'])"):
        code = WITHOUT_WALKER.format(module=module, folder=str(tmp_path / "bundle"))
        results.append(subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True))
    assert results[0].stdout.replace("True", "False") == results[1].stdout
    assert results[0].stderr.count("The extension housing.bundle.tree_walker is not compiled") == 1
    assert results[1].stderr == ""
