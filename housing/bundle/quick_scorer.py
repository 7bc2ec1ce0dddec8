"""Tests of small trees, from which `tree_walker.c` finds the leaf of a row without walking (QuickScorer).

Source: Lucchese et al., "QuickScorer: a fast algorithm to rank documents with additive ensembles of regression trees",
SIGIR 2015.
"""

import numpy as np
from numpy.typing import NDArray

MAX_LEAVES = 64  # a tree with more leaves is walked
TEST = np.dtype([("threshold", np.float32), ("feature", np.uint32), ("low", np.uint32), ("high", np.uint32)])  # struct Test

Nodes = NDArray[np.void]
Counts = NDArray[np.int64]


def add_tests(nodes: Nodes, trees: Nodes) -> tuple[NDArray[np.void], NDArray[np.float32]]:
    """Return the tests and leaf weights of all small trees, and write into `trees` where those of each tree begin.

    A test is an inner node. Its 64 bits are the leaves that a row can still reach if the comparison is true: all but
    those of the left subtree.

    Parameters
    ----------
    nodes
        Array of `trees.NODE`, shape (nodes,), each tree in breadth-first order.
    trees
        Array of `trees.TREE`, shape (trees,), in the order of the nodes.

    Returns
    -------
    tuple[NDArray[np.void], NDArray[np.float32]]
        Array of `TEST`, shape (tests,), and the weights of leaves from left to right, filled up with zeros so that
        `MAX_LEAVES` values follow the first leaf of each tree.
    """
    count, first = _leaves(nodes, trees)
    n_leaves = count[trees["root"]]
    is_small = (n_leaves > 1) & (n_leaves <= MAX_LEAVES)
    trees["tests"] = np.where(is_small, n_leaves - 1, 0)
    trees["first_test"] = np.cumsum(trees["tests"]) - trees["tests"]
    trees["first_leaf"] = trees["first_test"] + np.cumsum(is_small) - is_small  # a tree has one more leaf than tests

    tree = np.repeat(np.arange(len(trees)), 2 * n_leaves - 1)
    is_leaf = np.isnan(nodes["threshold"])
    inner, leaves = np.flatnonzero(is_small[tree] & ~is_leaf), np.flatnonzero(is_small[tree] & is_leaf)
    left = nodes["left"][inner]
    removed = ((np.uint64(1) << count[left].astype(np.uint64)) - np.uint64(1)) << first[left].astype(np.uint64)
    tests = np.zeros(len(inner), dtype=TEST)
    tests["threshold"], tests["feature"] = nodes["threshold"][inner], nodes["feature"][inner]
    tests["low"], tests["high"] = ~removed & np.uint64(2**32 - 1), ~removed >> np.uint64(32)
    weights = np.zeros(len(leaves) + MAX_LEAVES, dtype=np.float32)
    weights[trees["first_leaf"][tree[leaves]] + first[leaves]] = nodes["weight"][leaves]
    return tests, weights


def _leaves(nodes: Nodes, trees: Nodes) -> tuple[Counts, Counts]:
    """Return the number of leaves below each node, and how many leaves of its tree lie to their left, shape (nodes,)."""
    left = nodes["left"].astype(np.int64)
    levels, level = [], trees["root"].astype(np.int64)
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
