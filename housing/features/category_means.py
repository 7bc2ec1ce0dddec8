"""Target encoding of categories: smoothed mean targets of levels, out of fold for training rows.

Micci-Barreca, "A Preprocessing Scheme for High-Cardinality Categorical Attributes", SIGKDD Explorations 3 (2001) 27-32.
"""

import numpy as np

from housing.schema.column import Matrix, Vector

FOLDS = 5
SMOOTHING = 10.0  # rows of weight 1 with the overall mean that are added to each level
SEED = 0  # of the folds


def positions(codes: Matrix, n_levels: Vector) -> Matrix:
    """Return codes, shape (rows, columns), as indices of means. The code after the last level is unseen, then comes missing."""
    return np.where(np.isnan(codes), n_levels + 1, codes).astype(np.intp)


def level_means(codes: Vector, target: Vector, weight: Vector, n_levels: int) -> Vector:
    """Return the smoothed, weighted mean target of each level, of unseen and of missing values, shape (n_levels + 2,)."""
    index = positions(codes, np.array(n_levels))
    sums, rows = np.bincount(index, weight * target, n_levels + 2), np.bincount(index, weight, n_levels + 2)
    means: Vector = (sums + SMOOTHING * np.average(target, weights=weight)) / (rows + SMOOTHING)
    return means


def out_of_fold_means(codes: Vector, target: Vector, weight: Vector, n_levels: int) -> Vector:
    """Return for each row the mean of its level in the folds without it, shape (rows,). A single row gets its own target."""
    folds = min(FOLDS, len(target))
    fold_of = np.random.default_rng(SEED).permutation(len(target)) % folds
    index, encoded = positions(codes, np.array(n_levels)), np.full(len(target), np.average(target, weights=weight))
    for fold in range(folds if folds > 1 else 0):
        is_held_out, others = fold_of == fold, fold_of != fold
        means = level_means(codes[others], target[others], weight[others], n_levels)
        encoded[is_held_out] = means[index[is_held_out]]
    return encoded
