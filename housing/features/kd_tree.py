"""k-d tree: nearest-neighbour search among points, by scipy or, on a map, by compiled code with exactly scipy's result."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.features import compiled
from housing.schema.column import Matrix

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

Indices = NDArray[np.intp]

# The struct Node of spatial_kernels.c: the children of an inner node, or the range of points of a leaf, whose axis is -1.
NODE = np.dtype([("split", np.float64), ("axis", np.int32), ("first", np.uint32), ("second", np.uint32), ("unused", np.uint32)])
PACKED = {"tree_nodes": NODE, "tree_points": np.dtype(np.float64), "tree_order": np.dtype(np.uint32)}


class KdTree:
    """A search tree of points.

    Parameters
    ----------
    points
        Shape (points, dimensions).
    columns
        Columns of a queried row that are its coordinates; by default all columns.
    scale
        Factors that convert these columns to the unit of the points, shape (dimensions,); by default 1.
    """

    def __init__(
        self, points: NDArray[np.float64], columns: Sequence[int] | None = None, scale: NDArray[np.float64] | None = None
    ) -> None:
        dimensions = points.shape[1]
        self._count = len(points)
        self._columns = list(range(dimensions) if columns is None else columns)
        self._scale = np.ones(dimensions) if scale is None else scale
        self._tree: cKDTree | None = _build(points)
        self._packed: tuple[Any, ...] | None = None
        if dimensions != 2 or len(points) == 0:
            return
        if compiled.kernels is None:
            compiled.warn_not_compiled()
        else:
            self._use(pack_tree(points, self._tree))
            self._points = points

    def _use(self, packed: Mapping[str, NDArray[Any]]) -> None:
        """Search in a packed tree with compiled code."""
        points = packed["tree_points"]
        self._tree, self._packed = None, (*packed.values(), *points.min(axis=0).tolist(), *points.max(axis=0).tolist())

    @classmethod
    def restore(cls, packed: Mapping[str, NDArray[Any]], columns: Sequence[int], scale: NDArray[np.float64]) -> Self:
        """Return a tree from the result of `pack_tree`, without a copy. Raises ConfigError if it is not one."""
        _validate_packed(packed)
        if compiled.kernels is None or packed["tree_order"].size == 0:
            return cls(_in_row_order(packed["tree_points"], packed["tree_order"]), columns, scale)
        tree = cls.__new__(cls)
        tree._count, tree._columns, tree._scale = len(packed["tree_order"]), list(columns), scale
        tree._use({name: packed[name] for name in PACKED})
        return tree

    @cached_property
    def _points(self) -> NDArray[np.float64]:
        """The points in the order of the rows."""
        if self._tree is not None:
            return np.asarray(self._tree.data)
        assert self._packed is not None
        return _in_row_order(self._packed[1], self._packed[2])

    def query(self, rows: Matrix, count: int) -> tuple[Matrix, Indices]:
        """Return distances and indices of the `count` points that are nearest to each row.

        Parameters
        ----------
        rows
            Shape (rows, columns).
        count
            Number of neighbours.

        Returns
        -------
        distances, indices
            Both of shape (rows, count), nearest first.

        Raises
        ------
        ConfigError
            If the tree has fewer than `count` points.
        ValueError
            If a coordinate is not a finite number.
        """
        require_rows(self._count, count)
        if self._tree is not None:
            distances, indices = self._tree.query(rows[:, self._columns] * self._scale, k=np.arange(1, count + 1))
            return distances, indices
        return self._search(rows, self._columns, self._scale.tolist(), count)

    def leave_one_out(self, count: int, part: slice = slice(None)) -> tuple[Matrix, Indices]:
        """Return the same for points of the tree, all or a part of them; a point is not its own neighbour."""
        require_rows(self._count, count + 1)
        points = self._points[part]
        if self._tree is not None:
            distances, indices = self._tree.query(points, k=np.arange(1, count + 2))
        else:
            distances, indices = self._search(points, [0, 1], [1.0, 1.0], count + 1)
        is_self = indices == np.arange(*part.indices(self._count))[:, None]
        is_self[~is_self.any(axis=1), -1] = True  # if more points coincide than are returned, drop any one of them
        return distances[~is_self].reshape(-1, count), indices[~is_self].reshape(-1, count)

    def _search(self, rows: Matrix, columns: list[int], scale: list[float], count: int) -> tuple[Matrix, Indices]:
        distances, indices = np.empty((len(rows), count)), np.empty((len(rows), count), dtype=np.int64)
        rows = np.ascontiguousarray(rows, dtype=np.float64)
        compiled.kernels.search(*self._packed, rows, rows.shape[1], *columns, *scale, count, distances, indices)  # type: ignore[misc]
        return distances, indices


def require_rows(rows: int, required: int) -> None:
    """Raise ConfigError if there are too few training rows."""
    if rows < required:
        raise ConfigError(
            f"The features need at least {required} training rows (got {rows}). Use more rows, fewer neighbours or clusters,"
            " or features=static."
        )


def pack_tree(points: NDArray[np.float64], built: "cKDTree | None" = None) -> dict[str, NDArray[Any]]:
    """Return the tree of points, shape (points, 2), as arrays that the compiled search reads.

    `tree_nodes` are the nodes level by level, `tree_points` the points in the order of the leaves, `tree_order` their rows.
    """
    tree = built or _build(points)
    nodes: list[tuple[float, int, int, int, int]] = []
    level, n_known = [tree.tree], 1
    while level:
        children = []
        for node in level:
            if node.split_dim < 0:
                nodes.append((0.0, -1, node.start_idx, node.end_idx, 0))
            else:
                nodes.append((node.split, node.split_dim, n_known, n_known + 1, 0))
                children += [node.lesser, node.greater]
                n_known += 2
        level = children
    order = tree.indices
    return {"tree_nodes": np.array(nodes, dtype=NODE), "tree_points": tree.data[order], "tree_order": order.astype(np.uint32)}


def _build(points: NDArray[np.float64]) -> "cKDTree":
    from scipy.spatial import cKDTree  # pylint: disable=import-outside-toplevel  # a slow import that most models never need

    return cKDTree(points)


def _in_row_order(points: NDArray[np.float64], order: NDArray[np.uint32]) -> NDArray[np.float64]:
    rows = np.empty(points.shape)
    rows[order] = points
    return rows


def _validate_packed(packed: Mapping[str, NDArray[Any]]) -> None:
    """Raise ConfigError unless the compiled search stays within the arrays and reaches each point once."""
    nodes, points, order = (packed[name] for name in PACKED)
    if any(packed[name].dtype != dtype or not packed[name].flags.c_contiguous for name, dtype in PACKED.items()):
        raise ConfigError("The arrays of a k-d tree have other types or another order.")
    if nodes.ndim != 1 or nodes.size == 0 or order.ndim != 1 or points.shape != (len(order), 2):
        raise ConfigError(f"The arrays of a k-d tree have other shapes (got {nodes.shape}, {points.shape}, {order.shape}).")
    inner, leaves = nodes[nodes["axis"] >= 0], nodes[nodes["axis"] < 0]
    children = np.concatenate([inner["first"], inner["second"]])
    is_below = np.tile(np.flatnonzero(nodes["axis"] >= 0), 2) < children
    leaves = leaves[np.argsort(leaves["first"], kind="stable")]
    is_tree = inner["axis"].max(initial=0) <= 1 and is_below.all() and np.array_equal(np.sort(children), np.arange(1, len(nodes)))
    ends = np.concatenate([[0], leaves["second"]])
    is_partition = np.array_equal(ends[:-1], leaves["first"]) and (np.diff(ends) >= 0).all() and ends[-1] == len(order)
    is_permutation = order.max(initial=0) <= max(len(order) - 1, 0) and (np.bincount(order, minlength=len(order)) == 1).all()
    if not (is_tree and is_partition and is_permutation):
        raise ConfigError("The nodes of a k-d tree do not form a tree of its points.")
    if not np.isfinite(points).all():
        raise ConfigError("The points of a k-d tree must be finite numbers.")
