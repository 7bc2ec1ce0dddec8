"""Interventional Shapley values of one prediction against background rows.

A coalition takes its columns from the row and the others from a background row. Lundberg and Lee, "A Unified
Approach to Interpreting Model Predictions", NIPS 2017; Strumbelj and Kononenko, "Explaining prediction models and
individual predictions with feature contributions", Knowledge and Information Systems 41 (2014) 647-665, for sampling.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from housing.schema.column import Matrix, Vector

Predict = Callable[[Matrix], Vector]
Flags = NDArray[np.bool_]
Indices = NDArray[np.intp]
Replace = Callable[[Matrix, Flags], Matrix]  # returns rows with their flagged columns replaced
EXACT, SAMPLED = "exact", "sampled"


@dataclass(frozen=True)
class Explanation:
    """Shapley values, one per column, which add up to prediction - base value."""

    method: str
    prediction: float
    base_value: float
    values: Vector
    rows_evaluated: int


def shapley_values(
    predict: Predict, row: Vector, background: Matrix, owners: Indices, max_exact_features: int, n_samples: int
) -> Explanation:
    """Explain the prediction of a row, exactly if at most `max_exact_features` columns differ from the background.

    Otherwise sample permutations with a fixed seed, predicting about `n_samples` rows. Each background row is used equally
    often, so that these values add up too. A column that never differs has the value 0.

    Parameters
    ----------
    predict
        Function that predicts rows.
    row, background
        The row to explain, shape (numbers,), and the background rows, shape (rows, numbers).
    owners
        The index of the column that each number belongs to, shape (numbers,), ascending up to the last column. The numbers of a
        column are replaced together.
    """
    differing = (background != row) & ~(np.isnan(background) & np.isnan(row))
    differs = np.stack([differing[:, owners == column].any(axis=1) for column in range(owners.max() + 1)], axis=1)
    varying = np.flatnonzero(differs.any(axis=0))
    values = np.zeros(differs.shape[1])

    def replace(rows: Matrix, replaced: Flags) -> Matrix:
        by_column = np.zeros((len(rows), len(values)), dtype=np.bool_)
        by_column[:, varying] = replaced
        return np.where(by_column[:, owners], row, rows)

    if len(varying) <= max_exact_features:
        method, (values[varying], evaluated) = EXACT, _exact_values(predict, replace, background, differs[:, varying])
    else:
        method, (values[varying], evaluated) = SAMPLED, _sampled_values(predict, replace, background, len(varying), n_samples)
    base = float(predict(background).mean())
    return Explanation(method, float(predict(row[None])[0]), base, values, evaluated)


def _exact_values(predict: Predict, replace: Replace, background: Matrix, differs: Flags) -> tuple[Vector, int]:
    """Return the values from all coalitions. Identical mixed rows are predicted once."""
    count = differs.shape[1]
    coalitions = np.arange(2**count)
    bits = 1 << np.arange(count)
    differing = differs @ bits  # the differing columns of each background row, as a coalition
    mixed, inverse = np.unique((coalitions[:, None] & differing) + (np.arange(len(background)) << count), return_inverse=True)
    rows = replace(background[mixed >> count], mixed[:, None] & bits != 0)
    value = predict(rows)[inverse].reshape(len(coalitions), len(background)).mean(axis=1)
    sizes = (coalitions[:, None] & bits != 0).sum(axis=1)
    shares = np.array([1 / (count * math.comb(count - 1, size)) for size in range(count)])
    values = np.empty(count)
    for column, bit in enumerate(bits):
        without = coalitions[coalitions & bit == 0]
        values[column] = shares[sizes[without]] @ (value[without | bit] - value[without])
    return values, len(rows)


def _sampled_values(predict: Predict, replace: Replace, background: Matrix, count: int, n_samples: int) -> tuple[Vector, int]:
    """Return the mean change by each column as the row's columns replace those of a background row one by one.

    Each order is also used reversed (antithetic sampling), which reduces the variance.
    """
    random = np.random.default_rng(0)
    pairs = max(n_samples // (2 * len(background) * (count + 1)), 1)
    orders = random.permuted(np.tile(np.arange(count), (pairs * len(background), 1)), axis=1)
    orders = np.vstack([orders, orders[:, ::-1]])
    starts = np.tile(np.arange(len(background)), 2 * pairs)
    turn = np.argsort(orders, axis=1)  # the step at which each column is replaced
    replaced = turn[:, None, :] < np.arange(count + 1)[:, None]
    rows = replace(np.repeat(background[starts], count + 1, axis=0), replaced.reshape(-1, count))
    steps = np.diff(predict(rows).reshape(len(orders), count + 1), axis=1)
    return np.take_along_axis(steps, turn, axis=1).mean(axis=0), len(rows)
