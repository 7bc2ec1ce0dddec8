"""Tests of small trees, from which `tree_walker.c` finds the leaf of a row without walking (QuickScorer).

Sources: Lucchese et al., "QuickScorer: a fast algorithm to rank documents with additive ensembles of regression trees",
SIGIR 2015. Ye et al., "RapidScorer: fast tree ensemble evaluation by maximizing compactness in data level parallelization",
KDD 2018.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_LEAVES = 64  # a tree with more leaves is walked
GROUP = 8  # leaves that share a byte
GROUPS = MAX_LEAVES // GROUP
MAX_BOUNDS = 255  # thresholds of a code, which is a byte
MAX_CODES = 2**11  # of a row; those of a block of rows then take 512 KB, as much as an L2 cache. Trees with more are walked
TEST = np.dtype([("column", np.uint16), ("bound", np.int8), ("remaining", np.int8)])  # struct Test
SMALL_TREE = np.dtype(  # struct SmallTree
    [*((name, np.uint32) for name in ("first_test", "first_leaf", "groups")), ("tests", np.uint8, (GROUPS,))]
)
COLUMN = np.dtype([(name, np.uint32) for name in ("feature", "first", "count")])  # struct Column

Nodes = NDArray[np.void]
Counts = NDArray[np.int64]


class Scorer(NamedTuple):
    """Arrays that score small trees.

    Attributes
    ----------
    small_trees
        Array of `SMALL_TREE`, one for each tree.
    tests
        Array of `TEST`, those of each tree from its last group to its first.
    leaves
        The weights of leaves from left to right, filled up with zeros so that `MAX_LEAVES` values follow the first leaf of
        each tree.
    columns
        Array of `COLUMN`.
    thresholds
        The sorted thresholds of each column.
    """

    small_trees: NDArray[np.void]
    tests: NDArray[np.void]
    leaves: NDArray[np.float32]
    columns: NDArray[np.void]
    thresholds: NDArray[np.float32]


def build_scorer(nodes: Nodes, roots: Counts) -> Scorer:
    """Return the arrays that score all small trees.

    A test is an inner node and a group of leaves, of which its comparison clears some: those of the left subtree.

    Parameters
    ----------
    nodes
        Array of `trees.NODE`, shape (nodes,), each tree in breadth-first order.
    roots
        Index of the root of each tree, shape (trees,), in the order of the nodes.
    """
    count, first = _leaves(nodes, roots)
    n_leaves = count[roots]
    tree = np.repeat(np.arange(len(roots)), 2 * n_leaves - 1)
    is_leaf = np.isnan(nodes["threshold"])
    is_small = n_leaves <= MAX_LEAVES
    is_small &= _can_encode(nodes[is_small[tree] & ~is_leaf])
    inner, leaves = np.flatnonzero(is_small[tree] & ~is_leaf), np.flatnonzero(is_small[tree] & is_leaf)
    columns, thresholds, comparisons = _encode(nodes[inner])
    index, group, remaining = _clear(first[nodes["left"][inner]], count[nodes["left"][inner]])
    order = np.lexsort((-group, tree[inner[index]]))
    tests = comparisons[index[order]]
    tests["remaining"] = remaining[order]
    small_trees = _small_trees(n_leaves * is_small, tree[inner[index]], group)
    weights = np.zeros(len(leaves) + MAX_LEAVES, dtype=np.float32)
    weights[small_trees["first_leaf"][tree[leaves]] + first[leaves]] = nodes["weight"][leaves]
    return Scorer(small_trees, tests, weights, columns, thresholds)


def _small_trees(n_leaves: Counts, tree: Counts, group: Counts) -> NDArray[np.void]:
    """Return the array of `SMALL_TREE`, shape (trees,), of trees with these leaves, given the tree and the group of each test."""
    small_trees = np.zeros(len(n_leaves), dtype=SMALL_TREE)
    small_trees["groups"] = (n_leaves + GROUP - 1) // GROUP
    small_trees["tests"] = np.bincount(tree * GROUPS + group, minlength=len(n_leaves) * GROUPS).reshape(-1, GROUPS)
    for field, counts in (("first_test", small_trees["tests"].sum(axis=1)), ("first_leaf", n_leaves)):
        small_trees[field] = np.cumsum(counts) - counts
    return small_trees


def _can_encode(inner: Nodes) -> bool:
    """Return whether the tests of inner nodes need few codes. More than 65,536 would not have a number in `TEST`."""
    numbers = inner["feature"].astype(np.uint64) << np.uint64(32) | inner["threshold"].copy().view(np.uint32)
    _, n_thresholds = np.unique(np.unique(numbers) >> np.uint64(32), return_counts=True)
    return int((-(-n_thresholds // MAX_BOUNDS)).sum()) <= MAX_CODES


def _encode(inner: Nodes) -> tuple[NDArray[np.void], NDArray[np.float32], NDArray[np.void]]:
    """Return the columns and thresholds of inner nodes, and an array of `TEST` with the code and bound of each node."""
    features, of_node = np.unique(inner["feature"], return_inverse=True)
    columns, tests = np.zeros(len(features), dtype=COLUMN), np.zeros(len(inner), dtype=TEST)
    thresholds, n_codes = [np.empty(0, dtype=np.float32)], 0
    for index, feature in enumerate(features):
        values, rank = np.unique(inner["threshold"][of_node == index], return_inverse=True)
        columns[index] = feature, sum(map(len, thresholds)), len(values)
        tests["column"][of_node == index] = n_codes + rank // MAX_BOUNDS
        tests["bound"][of_node == index] = rank % MAX_BOUNDS + 1 + np.iinfo(np.int8).min
        thresholds.append(values)
        n_codes += -(-len(values) // MAX_BOUNDS)
    return columns, np.concatenate(thresholds), tests


def _clear(first: Counts, count: Counts) -> tuple[Counts, Counts, Counts]:
    """Return the inner node, the group and the remaining leaves of each test.

    Parameters
    ----------
    first, count
        The leaves of each inner node's left subtree, shape (inner nodes,).
    """
    starts = np.arange(GROUPS) * GROUP
    from_bit = np.clip(first[:, np.newaxis] - starts, 0, GROUP)
    to_bit = np.clip((first + count)[:, np.newaxis] - starts, 0, GROUP)
    node, group = np.nonzero(from_bit < to_bit)
    cleared = (1 << to_bit[node, group]) - (1 << from_bit[node, group])
    return node, group, (~cleared).astype(np.int8).astype(np.int64)


def _leaves(nodes: Nodes, roots: Counts) -> tuple[Counts, Counts]:
    """Return the number of leaves below each node, and how many leaves of its tree lie to their left, shape (nodes,)."""
    left = nodes["left"].astype(np.int64)
    levels, level = [], roots
    while (parents := level[~np.isnan(nodes["threshold"][level])]).size:
        levels.append(parents)
        level = np.concatenate((left[parents], left[parents] + 1))
    count, first = np.ones(len(nodes), dtype=np.int64), np.zeros(len(nodes), dtype=np.int64)
    for parents in reversed(levels):
        count[parents] = count[left[parents]] + count[left[parents] + 1]
    for parents in levels:
        first[left[parents]] = first[parents]
        first[left[parents] + 1] = first[parents] + count[left[parents]]
    return count, first
