"""k-d tree: nearest-neighbour search among points, by scipy or, on a map, by compiled code with exactly scipy's result."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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
        from scipy.spatial import cKDTree  # pylint: disable=import-outside-toplevel  # a slow import that most models never need

        dimensions = points.shape[1]
        self._points = points
        self._columns = list(range(dimensions) if columns is None else columns)
        self._scale = np.ones(dimensions) if scale is None else scale
        self._tree: cKDTree | None = cKDTree(points)
        self._packed: tuple[Any, ...] | None = None
        if dimensions != 2 or len(points) == 0:
            return
        if compiled.kernels is None:
            compiled.warn_not_compiled()
        else:
            self._packed, self._tree = _pack(self._tree), None

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
        require_rows(len(self._points), count)
        if self._tree is not None:
            distances, indices = self._tree.query(rows[:, self._columns] * self._scale, k=np.arange(1, count + 1))
            return distances, indices
        return self._search(rows, self._columns, self._scale.tolist(), count)

    def leave_one_out(self, count: int, part: slice = slice(None)) -> tuple[Matrix, Indices]:
        """Return the same for points of the tree, all or a part of them; a point is not its own neighbour."""
        require_rows(len(self._points), count + 1)
        points = self._points[part]
        if self._tree is not None:
            distances, indices = self._tree.query(points, k=np.arange(1, count + 2))
        else:
            distances, indices = self._search(points, [0, 1], [1.0, 1.0], count + 1)
        is_self = indices == np.arange(len(self._points))[part, None]
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


def _pack(tree: "cKDTree") -> tuple[Any, ...]:
    """Return the tree for the search: nodes level by level, points in the order of the leaves, their indices, and bounds."""
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
    return (
        np.array(nodes, dtype=NODE).tobytes(),
        tree.data[order].tobytes(),
        order.astype(np.uint32).tobytes(),
        *tree.mins.tolist(),
        *tree.maxes.tolist(),
    )
