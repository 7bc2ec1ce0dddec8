"""Encodings of categories with many levels: a few numbers for each level, computed out of fold for training rows.

Micci-Barreca, "A Preprocessing Scheme for High-Cardinality Categorical Attributes", SIGKDD Explorations 3 (2001) 27-32.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.schema.column import Matrix, Vector

FOLDS = 5
SEED = 0  # of the folds
AUTO, ONE_HOT = "auto", "one_hot"
# The columns of each method. `auto` chooses among them.
SUFFIXES = {"target_mean": ("target_mean",), "target_mean_and_share": ("target_mean", "share"), "ordered": ("position",)}


@dataclass(frozen=True)
class CategoryEncoding:
    """How categories become numbers, as `features.encoding` declares it.

    Attributes
    ----------
    method
        For categories with more than `max_one_hot_levels` levels: one of `SUFFIXES`, "one_hot", or "auto", which training
        replaces by the best one.
    smoothing
        Number of rows of weight 1 with the overall mean that are added to each level.
    """

    method: str
    max_one_hot_levels: int
    smoothing: float

    def __post_init__(self) -> None:
        methods = (AUTO, ONE_HOT, *SUFFIXES)
        if self.method not in methods:
            raise ConfigError(f"features.encoding.method must be one of {', '.join(methods)} (got {self.method!r}).")
        if not (isinstance(self.max_one_hot_levels, int) and self.max_one_hot_levels >= 0):
            raise ConfigError(
                f"features.encoding.max_one_hot_levels must be a whole number, at least 0 (got {self.max_one_hot_levels!r})."
            )
        if not (isinstance(self.smoothing, int | float) and 0 < self.smoothing < np.inf):
            raise ConfigError(f"features.encoding.smoothing must be a number above 0 (got {self.smoothing!r}).")

    def has_many(self, n_levels: int) -> bool:
        """Return whether `method` applies to a category with this number of levels."""
        return n_levels > self.max_one_hot_levels

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The names of the numbers of a level."""
        return SUFFIXES[self.method]

    def level_values(self, codes: Vector, target: Vector, weight: Vector, n_levels: int) -> Matrix:
        """Return the numbers of each level, of unseen and of missing values, shape (n_levels + 2, suffixes)."""
        index = positions(codes, np.array(n_levels))
        sums, rows = np.bincount(index, weight * target, n_levels + 2), np.bincount(index, weight, n_levels + 2)
        means: Vector = (sums + self.smoothing * np.average(target, weights=weight)) / (rows + self.smoothing)
        values = {"target_mean": means, "share": rows / rows.sum(), "position": _positions_in_order(means, means[rows > 0])}
        return np.column_stack([values[suffix] for suffix in self.suffixes])

    def out_of_fold_values(self, codes: Vector, target: Vector, weight: Vector, n_levels: int) -> Matrix:
        """Return for each row the numbers of its level in the folds without it, shape (rows, suffixes).

        A single row gets the numbers that it has itself.
        """
        fold_of, values = self.fold_values(codes, target, weight, n_levels)
        return np.asarray(values[fold_of, positions(codes, np.array(n_levels))])

    def fold_values(
        self, codes: Vector, target: Vector, weight: Vector, n_levels: int
    ) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
        """Return the fold of each row, and by fold the numbers of levels in the others, shape (folds, n_levels + 2, suffixes)."""
        folds = min(FOLDS, len(target))
        fold_of = (np.random.default_rng(SEED).permutation(len(target)) % folds).astype(np.int8)
        fitted = [fold_of != fold for fold in range(folds)] if folds > 1 else [np.ones(len(target), dtype=bool)]
        return fold_of, np.stack([self.level_values(codes[rows], target[rows], weight[rows], n_levels) for rows in fitted])


def positions(codes: Matrix, n_levels: Vector) -> Matrix:
    """Return codes, shape (rows, columns), as indices of values. The code after the last level is unseen, then comes missing."""
    return np.where(np.isnan(codes), n_levels + 1, codes).astype(np.intp)


def _positions_in_order(means: Vector, present: Vector) -> Vector:
    """Return where means are among those of the levels that have rows: 0 is below the lowest, 1 above the highest."""
    ordered = np.sort(present)
    ends = np.searchsorted(ordered, means, "left") + np.searchsorted(ordered, means, "right")
    middles: Vector = ends / (2 * len(ordered))
    return middles
