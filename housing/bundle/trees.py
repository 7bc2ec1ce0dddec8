"""Tree ensembles: read from ONNX graphs and run by compiled code.

`tree_walker.c` explains its layout of nodes, which `_pack` creates.
"""

import functools
import logging
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from housing.bundle import onnx_reader
from housing.bundle.quick_scorer import build_scorer
from housing.core.environment import SETUP_COMMAND
from housing.schema.column import Matrix, Vector

try:
    from housing.bundle import tree_walker as walker  # type: ignore[attr-defined]
except ImportError:  # the installation found no C compiler
    walker = None

log = logging.getLogger(__name__)

MAX_DEPTH = 64  # the walker takes as many steps for every row; chains run faster in ONNX Runtime, which stops at a leaf
MAX_ID = 2**31  # ids are below this limit: ONNX Runtime stores them as int32
MAX_FEATURES = 2**20  # exclusive limit of tree_walker.c
LEAF = b"LEAF"
GREATER = (b"BRANCH_GT", b"BRANCH_GTE")  # larger values go to the true child
EXCLUSIVE = (b"BRANCH_LEQ", b"BRANCH_GT")  # a value equal to the threshold goes where smaller values go
MODES = (b"BRANCH_LT", b"BRANCH_GTE", b"BRANCH_LEQ", b"BRANCH_GT", LEAF)

# Attributes of the operator and the field of their values: one value per node, one per leaf, optional, and fixed values.
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


# The structs Node and Tree of tree_walker.c.
NODE = np.dtype([("threshold", np.float32), ("feature", np.uint32), ("left", np.uint32), ("weight", np.float32)])
TREE = np.dtype([("root", np.uint32), ("depth", np.uint32)])
FLOAT = 1  # ONNX's number of the type float32

Indices = NDArray[np.int64]


class Arrays(NamedTuple):
    """Arrays that the tree walker reads, as bytes.

    Attributes
    ----------
    nodes
        Array of `NODE`.
    trees
        Array of `TREE`.
    small_trees, tests, leaves, columns, thresholds
        The fields of `quick_scorer.Scorer`.
    """

    nodes: bytes
    trees: bytes
    small_trees: bytes
    tests: bytes
    leaves: bytes
    columns: bytes
    thresholds: bytes


class UnsupportedTree(Exception):
    """A graph is not a single tree ensemble that the walker can run."""


class Trees:
    """A sum of regression trees that the tree walker runs.

    Parameters
    ----------
    arrays
        The nodes of the trees, and what else the tree walker reads.
    width
        Number of columns.
    base
        Constant that is added to the sum.

    Raises
    ------
    ValueError
        If an index is out of range.
    """

    def __init__(self, arrays: Arrays, width: int, base: float) -> None:
        walker.check(arrays, width)
        self._width, self._walker_arguments = width, (arrays, width, base)

    @classmethod
    def from_model(cls, model: Any) -> Self | None:
        """Return the trees of a parsed ONNX model, or None if the walker cannot run it or is not compiled."""
        try:
            node, width = _single_node(model)
            packed = _pack(_attributes(node), width)
        except UnsupportedTree:
            return None
        if walker is None:
            _warn_not_compiled()
            return None
        return cls(*packed)

    def predict(self, columns: Matrix) -> Vector:
        """Predict rows with exactly the result of ONNX Runtime.

        Parameters
        ----------
        columns
            Shape (rows, width).

        Returns
        -------
        Vector
            Shape (rows,).

        Raises
        ------
        ValueError
            If the columns have another shape.
        """
        if columns.ndim != 2 or columns.shape[1] != self._width:
            raise ValueError(f"columns must have the shape (rows, {self._width}) (got {columns.shape}).")
        sums = np.empty(len(columns))
        walker.walk(*self._walker_arguments, np.ascontiguousarray(columns, dtype=np.float64), sums)
        return sums


@functools.lru_cache
def _warn_not_compiled() -> None:
    log.warning(
        "The extension housing.bundle.tree_walker is not compiled. ONNX Runtime runs the trees, which needs more time and memory."
        " Install a C compiler, then: %s",
        SETUP_COMMAND,
    )


def _single_node(model: Any) -> tuple[Any, int]:
    """Return the tree ensemble of a graph and its number of columns. Raises UnsupportedTree if there is anything else.

    Identity nodes may follow it: the converter of LightGBM writes one.
    """
    graph = model.graph
    if (len(graph.input), len(graph.output)) != (1, 1) or not graph.node:
        raise UnsupportedTree("the graph must have nodes, one input and one output")
    if model.functions or model.training or graph.initializer or graph.sparse:
        raise UnsupportedTree("the model must have no functions, initializers or training information")
    node, graph_input, graph_output = graph.node[0], graph.input[0], graph.output[0]
    operators = [(each.domain, each.op_type) for each in graph.node]
    identities = [("", "Identity")] * (len(graph.node) - 1)
    if operators != [(onnx_reader.ML_DOMAIN, onnx_reader.TREE_OPERATOR), *identities]:
        raise UnsupportedTree(f"the nodes must be a {onnx_reader.TREE_OPERATOR} and identities")
    names = [graph_input.name, *(name for each in graph.node for name in each.output)]
    if [list(each.input) for each in graph.node] != [[name] for name in names[:-1]] or names[-1] != graph_output.name:
        raise UnsupportedTree("the nodes must be a chain from the input to the output")
    dim = graph_input.type.tensor.shape.dim
    if {graph_input.type.tensor.elem_type, graph_output.type.tensor.elem_type} != {FLOAT}:
        raise UnsupportedTree("input and output must be float32")
    if len(dim) != 2 or dim[0].HasField("value") or not 0 < dim[1].value < MAX_FEATURES:
        raise UnsupportedTree("the input must have any number of rows and a fixed number of columns")
    return node, dim[1].value


def _attributes(node: Any) -> dict[str, NDArray[Any]]:
    """Return the attributes of a node as arrays. Raises UnsupportedTree for a value that the walker does not implement."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    kinds, required = NODE_ATTRIBUTES | LEAF_ATTRIBUTES | OPTIONAL_ATTRIBUTES, {*NODE_ATTRIBUTES, *LEAF_ATTRIBUTES, "n_targets"}
    if len(attributes) < len(node.attribute) or not required <= attributes.keys() <= {
        *kinds,
        *REQUIRED_VALUES,
        *IGNORED_ATTRIBUTES,
    }:
        raise UnsupportedTree("an attribute is duplicate, unknown or missing")
    if any((attributes[name].i or attributes[name].s) != value for name, value in REQUIRED_VALUES.items() if name in attributes):
        raise UnsupportedTree("the result must be the sum for a single target")
    parts = {
        name: np.array(getattr(attributes[name], kind) if name in attributes else (), DTYPES[kind])
        for name, kind in kinds.items()
    }
    if not parts["nodes_missing_value_tracks_true"].size:
        parts["nodes_missing_value_tracks_true"] = np.zeros(len(parts["nodes_treeids"]), dtype=np.int64)
    for names in (*NODE_ATTRIBUTES, "nodes_missing_value_tracks_true"), LEAF_ATTRIBUTES:
        lengths = {len(parts[name]) for name in names}
        if len(lengths) != 1 or lengths == {0}:
            raise UnsupportedTree("the attributes of nodes or leaves differ in length, or are empty")
    return parts


def _pack(parts: dict[str, NDArray[Any]], width: int) -> tuple[Arrays, int, float]:
    """Return the arguments of `Trees`, with the nodes of each tree in breadth-first order.

    Raises
    ------
    UnsupportedTree
        If the nodes are not trees, or the walker would compare or add their numbers in another way than ONNX Runtime.
    """
    is_first = np.append(True, np.diff(parts["nodes_treeids"]) != 0)
    tree = np.cumsum(is_first) - 1  # ONNX Runtime adds trees in this order
    tree_ids, node_ids = _unique_ids(0, parts["nodes_treeids"][is_first]), _unique_ids(tree, parts["nodes_nodeids"])
    inner = parts["nodes_modes"] != LEAF
    true, false = (np.arange(len(tree)) for _ in range(2))  # a leaf is its own child
    for children, side in ((true, "nodes_truenodeids"), (false, "nodes_falsenodeids")):
        children[inner] = _lookup(node_ids, _unique_ids(tree[inner], parts[side][inner]))
    left, right = np.where(np.isin(parts["nodes_modes"], GREATER), (false, true), (true, false))
    leaves = _lookup(node_ids, _unique_ids(_lookup(tree_ids, parts["target_treeids"]), parts["target_nodeids"]))
    position, depth = _breadth_first(is_first, tree, inner, left, right)
    if not np.array_equal(np.sort(leaves), np.flatnonzero(~inner)):
        raise UnsupportedTree("each leaf must have one weight, and only leaves")

    nodes, trees = np.zeros(len(tree), dtype=NODE), np.zeros(len(tree_ids), dtype=TREE)
    nodes["threshold"][position] = _thresholds(parts, inner)
    nodes["feature"][position] = _features(parts, inner, width)
    nodes["left"][position] = position[left]
    nodes["weight"][position[leaves]] = parts["target_weights"]
    trees["root"], trees["depth"] = position[is_first], depth
    scorer = build_scorer(nodes, position[is_first])
    return Arrays(*(array.tobytes() for array in (nodes, trees, *scorer))), width, _base(parts)


def _base(parts: dict[str, NDArray[Any]]) -> float:
    """Return the constant of the sum. Raises UnsupportedTree if there are other targets, or a weight is not finite."""
    base = parts["base_values"]
    if len(base) > 1 or not np.isfinite(np.append(base, parts["target_weights"])).all() or parts["target_ids"].any():
        raise UnsupportedTree("weights must be finite numbers for a single target")
    return float(base.sum())


def _unique_ids(tree: Indices | int, node: Indices) -> Indices:
    """Return ids that are unique across trees. Raises UnsupportedTree if an id is out of range."""
    if ((node < 0) | (node >= MAX_ID)).any():
        raise UnsupportedTree("an id is out of range")
    return tree * MAX_ID + node


def _lookup(ids: Indices, required: Indices) -> Indices:
    """Return the indices of the required ids. Raises UnsupportedTree if one is missing or any id is duplicate."""
    order = np.argsort(ids, kind="stable")
    sorted_ids = ids[order]
    positions = np.minimum(np.searchsorted(sorted_ids, required), len(sorted_ids) - 1)
    if (np.diff(sorted_ids) == 0).any() or (sorted_ids[positions] != required).any():
        raise UnsupportedTree("an id is duplicate or refers to nothing")
    return order[positions]


def _breadth_first(
    is_first: NDArray[np.bool_], tree: Indices, inner: NDArray[np.bool_], left: Indices, right: Indices
) -> tuple[Indices, Indices]:
    """Return the position of each node in breadth-first order tree by tree, left child first, and the depth of each tree."""
    levels, depth = [np.flatnonzero(is_first)], np.zeros(is_first.sum(), dtype=np.int64)
    while (parents := levels[-1][inner[levels[-1]]]).size:
        if len(levels) > MAX_DEPTH or sum(map(len, levels)) > len(tree):
            raise UnsupportedTree("a tree is too deep or has a cycle")
        depth[tree[parents]] = len(levels)
        levels.append(np.column_stack((left[parents], right[parents])).ravel())
    order = np.concatenate(levels)
    if not np.array_equal(np.sort(order), np.arange(len(tree))):
        raise UnsupportedTree("each node but the root must have one parent")
    order = order[np.argsort(tree[order], kind="stable")]
    return np.argsort(order), depth


def _thresholds(parts: dict[str, NDArray[Any]], inner: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the smallest value that goes to the right child, or NaN for a leaf, shape (nodes,)."""
    values, modes = parts["nodes_values"], parts["nodes_modes"]
    if not np.isfinite(values[inner]).all() or not np.isin(modes, MODES).all():
        raise UnsupportedTree("comparisons must be <, <=, > or >= with a finite number")
    with np.errstate(over="ignore"):  # the successor of the largest float is infinity, as needed
        next_up = np.nextafter(values, np.float32(np.inf))
    return np.where(inner, np.where(np.isin(modes, EXCLUSIVE), next_up, values), np.float32(np.nan))


def _features(parts: dict[str, NDArray[Any]], inner: NDArray[np.bool_], width: int) -> Indices:
    """Return the column of each node, shape (nodes,), plus `width` if a missing value goes to the left child."""
    feature, tracks = parts["nodes_featureids"], parts["nodes_missing_value_tracks_true"]
    if ((feature < 0) | (feature >= width))[inner].any() or not np.isin(tracks, (0, 1)).all():
        raise UnsupportedTree("a column is out of range")
    goes_left = (tracks == 1) != np.isin(parts["nodes_modes"], GREATER)
    return np.where(inner, feature + width * goes_left, 0)
