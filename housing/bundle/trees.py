"""Ensembles of trees, read from their ONNX graphs and walked by compiled code; `tree_walker.c` says how."""

import functools
import logging
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from housing.bundle import onnx_reader
from housing.core.errors import BundleError
from housing.schema.column import Matrix, Vector

try:
    from housing.bundle import tree_walker as walker  # type: ignore[attr-defined]
except ImportError:  # setup compiles it where there is a C compiler
    walker = None


log = logging.getLogger(__name__)


MAX_DEPTH = 64  # a walk takes as many steps as its tree is deep: chains are for an engine that stops at a leaf


MAX_ID = 2**31  # every id is smaller: ONNX Runtime holds them so


MAX_FEATURES = 2**20  # columns are fewer, as tree_walker.c asks for


LESS, LESS_OR_EQUAL, LEAF = b"BRANCH_LT", b"BRANCH_LEQ", b"LEAF"


# The attributes of an ensemble: as many as nodes, as many as leaves, and what can only be so.
NODE_ATTRIBUTES = {
    **dict.fromkeys(("nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_truenodeids", "nodes_falsenodeids"), "ints"),
    "nodes_modes": "strings",
    "nodes_values": "floats",
}


LEAF_ATTRIBUTES = {"target_treeids": "ints", "target_nodeids": "ints", "target_ids": "ints", "target_weights": "floats"}


OPTIONAL_ATTRIBUTES = {"nodes_missing_value_tracks_true": "ints", "base_values": "floats"}


REQUIRED_VALUES = {"n_targets": 1, "post_transform": b"NONE", "aggregate_function": b"SUM"}


IGNORED_ATTRIBUTES = {"nodes_hitrates"}


DTYPES = {"ints": np.int64, "floats": np.float32, "strings": np.bytes_}


# As tree_walker.c has them.
NODE = np.dtype([("threshold", np.float32), ("feature", np.uint32), ("left", np.uint32), ("weight", np.float32)])


TREE = np.dtype([("root", np.uint32), ("depth", np.uint32)])


FLOAT = 1  # ONNX's number for float32


Indices = NDArray[np.int64]


class UnsupportedTree(Exception):
    """A graph is something else than one ensemble of plain trees."""


class Trees:
    """An estimator that is a sum of trees."""

    def __init__(self, nodes: bytes, trees: bytes, width: int, base: float) -> None:
        walker.check(nodes, trees, width)
        self._width, self._walker_arguments = width, (nodes, trees, width, base)

    @classmethod
    def read(cls, graph: bytes) -> Self | None:
        """Give the trees of a graph; nothing where it has or may have anything else, or where the walker is not built."""
        try:
            node, width = _single_node(onnx_reader.read_model(graph))
            laid_out = _pack(_attributes(node), width)
        except (BundleError, UnsupportedTree):
            return None
        if walker is None:
            _warn_not_compiled()
            return None
        return cls(*laid_out)

    def predict(self, columns: Matrix) -> Vector:
        """Give the sum of the trees for each row, in every bit as ONNX Runtime does. Raises ValueError for other columns."""
        if columns.ndim != 2 or columns.shape[1] != self._width:
            raise ValueError(f"columns of shape {columns.shape}; allowed: (rows, {self._width})")
        sums = np.empty(len(columns))
        walker.walk(*self._walker_arguments, np.ascontiguousarray(columns, dtype=np.float64), sums)
        return sums


@functools.lru_cache
def _warn_not_compiled() -> None:
    log.warning("housing.bundle.tree_walker is not built: ONNX Runtime walks the trees, which takes longer and more memory")


def _single_node(model: Any) -> tuple[Any, int]:
    """Give the node that is all of a graph, and how many columns it takes. Raises NotPlain where there is more."""
    graph = model.graph
    if (len(graph.node), len(graph.input), len(graph.output)) != (1, 1, 1):
        raise UnsupportedTree("has not one node, one input, one output")
    if model.functions or model.training or graph.initializer or graph.sparse:
        raise UnsupportedTree("has parts besides its node")
    node, taken, given = graph.node[0], graph.input[0], graph.output[0]
    if (node.domain, node.op_type) != (onnx_reader.ML_DOMAIN, onnx_reader.TREE_OPERATOR) or [*node.input, *node.output] != [
        taken.name,
        given.name,
    ]:
        raise UnsupportedTree("is no ensemble of trees")
    dim = taken.type.tensor.shape.dim
    if {taken.type.tensor.elem_type, given.type.tensor.elem_type} != {FLOAT}:
        raise UnsupportedTree("takes or gives other numbers than float32")
    if len(dim) != 2 or dim[0].HasField("value") or not 0 < dim[1].value < MAX_FEATURES:
        raise UnsupportedTree("takes a fixed number of rows, or does not say how many columns")
    return node, dim[1].value


def _attributes(node: Any) -> dict[str, NDArray[Any]]:
    """Give the attributes of an ensemble as arrays. Raises NotPlain where one says what is not walked."""
    found = {attribute.name: attribute for attribute in node.attribute}
    kinds, needed = NODE_ATTRIBUTES | LEAF_ATTRIBUTES | OPTIONAL_ATTRIBUTES, {*NODE_ATTRIBUTES, *LEAF_ATTRIBUTES, "n_targets"}
    if len(found) < len(node.attribute) or not needed <= found.keys() <= {*kinds, *REQUIRED_VALUES, *IGNORED_ATTRIBUTES}:
        raise UnsupportedTree("has an attribute twice, or one that is not known, or lacks one")
    if any((found[name].i or found[name].s) != value for name, value in REQUIRED_VALUES.items() if name in found):
        raise UnsupportedTree("has several targets, or does more than to add up")
    parts = {name: np.array(getattr(found[name], kind) if name in found else (), DTYPES[kind]) for name, kind in kinds.items()}
    if not parts["nodes_missing_value_tracks_true"].size:
        parts["nodes_missing_value_tracks_true"] = np.zeros(len(parts["nodes_treeids"]), dtype=np.int64)
    for names in (*NODE_ATTRIBUTES, "nodes_missing_value_tracks_true"), LEAF_ATTRIBUTES:
        lengths = {len(parts[name]) for name in names}
        if len(lengths) != 1 or lengths == {0}:
            raise UnsupportedTree("has no nodes, or not as many of each of their parts")
    return parts


def _pack(parts: dict[str, NDArray[Any]], width: int) -> tuple[bytes, bytes, int, float]:
    """Give nodes, trees, width and base as the walker takes them: a tree after the other, each level by level.

    Raises NotPlain for trees that are none, and for numbers that compare or add up in another way than the walker does.
    """
    is_first = np.append(True, np.diff(parts["nodes_treeids"]) != 0)
    tree = np.cumsum(is_first) - 1  # ONNX Runtime adds them up in the order in which they come
    ids, names = _unique_ids(0, parts["nodes_treeids"][is_first]), _unique_ids(tree, parts["nodes_nodeids"])
    inner = parts["nodes_modes"] != LEAF
    true, false = (np.arange(len(tree)) for _ in range(2))  # of a leaf: itself
    for children, side in ((true, "nodes_truenodeids"), (false, "nodes_falsenodeids")):
        children[inner] = _lookup(names, _unique_ids(tree[inner], parts[side][inner]))
    leaves = _lookup(names, _unique_ids(_lookup(ids, parts["target_treeids"]), parts["target_nodeids"]))
    walked, depth = _breadth_first(is_first, tree, inner, true, false)
    if not np.array_equal(np.sort(leaves), np.flatnonzero(~inner)):
        raise UnsupportedTree("has a leaf without a weight, or with several, or a weight that is no leaf's")
    place = np.empty_like(walked)
    place[walked] = np.arange(len(walked))

    nodes, trees = np.zeros(len(tree), dtype=NODE), np.zeros(len(ids), dtype=TREE)
    nodes["threshold"][place] = _thresholds(parts, inner)
    nodes["feature"][place] = _features(parts, inner, width)
    nodes["left"][place] = place[true]
    nodes["weight"][place[leaves]] = parts["target_weights"]
    trees["root"], trees["depth"] = place[is_first], depth
    base = parts["base_values"]
    if len(base) > 1 or not np.isfinite(np.append(base, parts["target_weights"])).all() or parts["target_ids"].any():
        raise UnsupportedTree("has weights that are no numbers, or of several targets")
    return nodes.tobytes(), trees.tobytes(), width, float(base.sum())


def _unique_ids(tree: Indices | int, node: Indices) -> Indices:
    """Give each node a name of its own, from the place of its tree and its id in there. Raises NotPlain for an odd id."""
    if ((node < 0) | (node >= MAX_ID)).any():
        raise UnsupportedTree("has an id out of range")
    return tree * MAX_ID + node


def _lookup(ids: Indices, required: Indices) -> Indices:
    """Find names among all. Raises NotPlain where one is not there, or is there twice."""
    order = np.argsort(ids, kind="stable")
    known = ids[order]
    found = np.minimum(np.searchsorted(known, required), len(known) - 1)
    if (np.diff(known) == 0).any() or (known[found] != required).any():
        raise UnsupportedTree("has an id twice, or one that is of nothing")
    return order[found]


def _breadth_first(
    is_first: NDArray[np.bool_], tree: Indices, inner: NDArray[np.bool_], true: Indices, false: Indices
) -> tuple[Indices, Indices]:
    """Give all nodes tree by tree and level by level, the true child of a node before its false one; and the trees' depths."""
    levels, depth = [np.flatnonzero(is_first)], np.zeros(is_first.sum(), dtype=np.int64)
    while (parents := levels[-1][inner[levels[-1]]]).size:
        if len(levels) > MAX_DEPTH or sum(map(len, levels)) > len(tree):
            raise UnsupportedTree("has a tree that is too deep, or a circle")
        depth[tree[parents]] = len(levels)
        levels.append(np.column_stack((true[parents], false[parents])).ravel())
    walked = np.concatenate(levels)
    if not np.array_equal(np.sort(walked), np.arange(len(tree))):
        raise UnsupportedTree("has a node with several parents, or with none")
    return walked[np.argsort(tree[walked], kind="stable")], depth


def _thresholds(parts: dict[str, NDArray[Any]], inner: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Give the number from which on a value goes to the false child, NaN for a leaf."""
    values, modes = parts["nodes_values"], parts["nodes_modes"]
    if not np.isfinite(values[inner]).all() or not np.isin(modes, (LESS, LESS_OR_EQUAL, LEAF)).all():
        raise UnsupportedTree("has another comparison than < and <=, or one with no number")
    with np.errstate(over="ignore"):  # above the largest number is infinity, which is right
        next_up = np.nextafter(values, np.float32(np.inf))
    return np.where(inner, np.where(modes == LESS, values, next_up), np.float32(np.nan))


def _features(parts: dict[str, NDArray[Any]], inner: NDArray[np.bool_], width: int) -> Indices:
    """Give the column that a node looks at: plus `width` where a missing value goes to the true child."""
    feature, tracks = parts["nodes_featureids"], parts["nodes_missing_value_tracks_true"]
    if ((feature < 0) | (feature >= width))[inner].any() or not np.isin(tracks, (0, 1)).all():
        raise UnsupportedTree("looks at a column that is not there")
    return np.where(inner, feature + width * tracks, 0)
