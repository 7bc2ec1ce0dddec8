"""Multivariate drift: how well a classifier tells the rows of a window from a sample of the training rows.

If both come from one distribution, nobody can tell them apart: the area under the ROC curve (AUC) on held-out rows is about 0.5.
The classifier is a ridge regression on cosines of ranks and their products (Rayner and Best, "Smooth Tests of Goodness of Fit",
1989), so that it also sees columns that changed only together. The threshold comes from permutations of the labels (Lopez-Paz and
Oquab, "Revisiting Classifier Two-Sample Tests", ICLR 2017, also use the normal approximation).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from housing.schema.column import Column, Matrix, Vector

N_PERMUTATIONS = 60
Z_LIMIT = 3.3  # as in prometheus/alerts.yml; chance exceeds it in 0.05 % of windows, if the AUC is normal
N_FOLDS = 5
RIDGE = 0.02  # times the number of rows; the terms have a variance of 1
MAX_TERMS = 256  # the time of a window grows with their square
MAX_COSINES, MAX_LEVELS = 4, 4  # terms of one column
PAIRED_TERMS = 2  # of each column in products: a tendency and a curvature
SEED = 0

Terms = NDArray[np.float32]  # shape (rows, terms); float32 takes half of the time


@dataclass(frozen=True)
class MultivariateDrift:
    """The distance of a window from the training rows.

    Attributes
    ----------
    auc
        The share of pairs of a training row and a row of the window that the classifier orders correctly. 0.5: no drift.
    chance_mean, chance_std
        Mean and standard deviation of the AUC if labels mean nothing.
    columns
        By how much the AUC falls if the classifier does not see a column, largest first.
    """

    auc: float
    chance_mean: float
    chance_std: float
    columns: dict[str, float]

    @property
    def threshold(self) -> float:
        """An AUC that chance alone rarely exceeds with this number of rows."""
        return self.chance_mean + Z_LIMIT * self.chance_std

    @property
    def z(self) -> float:
        """The distance of the AUC from chance, in standard deviations; 0 if all rows are equal."""
        return (self.auc - self.chance_mean) / self.chance_std if self.chance_std else 0.0

    @property
    def has_drifted(self) -> bool:
        """Whether chance does not explain the difference."""
        return self.z > Z_LIMIT


def measure_multivariate_drift(
    columns: Sequence[Column], reference: Matrix, window: Matrix, contributions: Mapping[str, float]
) -> MultivariateDrift:
    """Compare a window with a sample of the training rows.

    If there are too many columns or pairs of columns, the classifier sees those with the largest contributions to predictions.

    Parameters
    ----------
    columns
        The columns of the table.
    reference, window
        Encoded rows, shape (rows, at least as many as columns); components of texts are not used.
    contributions
        The contribution of each column, see `housing.training.contributions`.
    """
    random = np.random.default_rng(SEED)
    shuffled = random.permutation(len(reference) + len(window))  # folds are slices, and equal scores are in random order
    is_window = (shuffled >= len(reference)).astype(np.float32)
    permuted = [random.permutation(is_window) for _ in range(N_PERMUTATIONS)]
    seen = sorted(range(len(columns)), key=lambda index: -contributions.get(columns[index].name, 0.0))[:MAX_TERMS]
    terms, owners = _make_terms([columns[index] for index in seen], np.vstack([reference, window])[shuffled][:, seen])
    kept = np.array([[index not in owner for index in range(len(seen))] for owner in owners], dtype=np.float32)
    scores, scores_without = _held_out_scores(terms, np.stack([is_window, *permuted], axis=1), kept)
    auc, *by_chance = _areas(scores, np.stack([is_window, *permuted], axis=1)).tolist()
    losses = auc - _areas(scores_without, np.repeat(is_window[:, None], len(seen), axis=1))
    by_column = {columns[seen[index]].name: float(losses[index]) for index in np.argsort(-losses, kind="stable")}
    return MultivariateDrift(auc, float(np.mean(by_chance)), float(np.std(by_chance, ddof=1)), by_column)


def _make_terms(columns: Sequence[Column], matrix: Matrix) -> tuple[Terms, list[tuple[int, ...]]]:
    """Return terms of single columns and products of two columns, and the columns that each term is made of.

    A term has a mean of 0 and a variance of 1, or is 0 everywhere.
    """
    n_cosines = int(np.clip(MAX_TERMS // (2 * len(columns)), 1, MAX_COSINES))
    blocks = [_column_terms(column, values, n_cosines) for column, values in zip(columns, matrix.T, strict=True)]
    owners: list[tuple[int, ...]] = [(index,) for index, block in enumerate(blocks) for _ in range(block.shape[1])]
    pairs, free = list(combinations(range(len(columns)), 2)), max(MAX_TERMS - len(owners), 0)
    n_paired = PAIRED_TERMS if len(pairs) * PAIRED_TERMS**2 <= free else 1
    parts = [*blocks]
    for first, second in sorted(pairs, key=sum)[: free // n_paired**2]:  # the largest contributions come first
        left, right = blocks[first][:, :n_paired], blocks[second][:, :n_paired]
        parts.append((left[:, :, None] * right[:, None, :]).reshape(len(matrix), -1))
        owners += [(first, second)] * parts[-1].shape[1]
    return _standardize(np.hstack(parts)), owners


def _column_terms(column: Column, values: Vector, n_cosines: int) -> Terms:
    """Return cosines of the ranks of numbers, or indicators of frequent levels; and an indicator of missing values."""
    is_missing = np.isnan(values)
    present = values[~is_missing]
    if column.is_continuous:
        ordered = np.sort(present)
        below, not_above = (np.searchsorted(ordered, present, side) for side in ("left", "right"))
        ranks = (below + not_above) / max(2 * len(present), 1)
        terms = np.zeros((len(values), n_cosines), dtype=np.float32)
        terms[~is_missing] = np.sqrt(2) * np.cos(np.pi * ranks[:, None] * np.arange(1, n_cosines + 1))
    else:
        levels, counts = np.unique(present, return_counts=True)
        frequent = levels[np.argsort(-counts, kind="stable")[: min(MAX_LEVELS, n_cosines)]]
        terms = _standardize((values[:, None] == frequent).astype(np.float32))
    return np.column_stack([terms, _standardize(is_missing[:, None].astype(np.float32))]) if is_missing.any() else terms


def _standardize(values: Terms) -> Terms:
    centered = values - values.mean(axis=0)
    scale = np.sqrt(np.einsum("rt,rt->t", centered, centered) / max(len(values), 1))
    return np.divide(centered, scale, out=np.zeros_like(centered), where=scale > 1e-5)


def _held_out_scores(terms: Terms, labels: Terms, kept: Terms) -> tuple[Terms, Terms]:
    """Return the scores of each row by regressions on the other folds.

    The first array has a regression for each column of labels. The second one has the first regression without some of its terms:
    `kept`, shape (terms, cases), is 0 for these. Labels do not change the terms, so all regressions of a fold share one matrix.
    """
    parts = np.array_split(terms, N_FOLDS)
    grams = [part.T @ part for part in parts]
    products = [part.T @ centered for part, centered in zip(parts, np.array_split(labels - labels.mean(), N_FOLDS), strict=True)]
    total_gram = np.sum(grams, axis=0) + RIDGE * len(terms) * np.eye(terms.shape[1], dtype=np.float32)
    total_product = np.sum(products, axis=0)
    scores, reduced = [], []
    for part, gram, product in zip(parts, grams, products, strict=True):
        weights = np.linalg.solve(total_gram - gram, total_product - product)
        scores.append(part @ weights)
        reduced.append(part @ (weights[:, :1] * kept))
    return np.vstack(scores), np.vstack(reduced)


def _areas(scores: Terms, is_window: Terms) -> Vector:
    """Return for each column the share of pairs of rows that the scores order correctly. Equal scores keep their random order."""
    order = np.argsort(np.ascontiguousarray(scores.T), axis=1)
    ordered = np.take_along_axis(np.ascontiguousarray(is_window.T), order, axis=1)
    n_window, n_rows = is_window.sum(axis=0, dtype=np.float64), len(is_window)
    rank_sum = ordered @ np.arange(1, n_rows + 1, dtype=np.float64)
    return np.asarray((rank_sum - n_window * (n_window + 1) / 2) / (n_window * (n_rows - n_window)))
