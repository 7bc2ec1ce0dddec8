"""Shapley values of one prediction against background rows: what each column adds to the mean prediction of these.

Interventional: a coalition takes its columns from the row, the others from a background row. Lundberg and Lee, "A Unified
Approach to Interpreting Model Predictions", NIPS 2017; Strumbelj and Kononenko, "Explaining prediction models and
individual predictions with feature contributions", Knowledge and Information Systems 41 (2014) 647-665, for the samples.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from housing.schema.column import Matrix, Vector

Predict = Callable[[Matrix], Vector]


Flags = NDArray[np.bool_]


EXACT, SAMPLED = "exact", "sampled"


@dataclass(frozen=True)
class Explanation:
    """Values that add up to prediction - base, one for each column; `evaluated` rows were predicted for them."""

    method: str
    prediction: float
    base_value: float
    values: Vector
    rows_evaluated: int


def shapley_values(predict: Predict, row: Vector, background: Matrix, max_exact_features: int, n_samples: int) -> Explanation:
    """Explain the prediction of a row: exactly where at most `most_exact` columns differ from the background's.

    Beyond, permutations are sampled (the same ones each time), with about `evaluations` predicted rows; each background
    row is taken equally often, so that the values add up here too. A column that never differs has the value 0.
    """
    differs = (background != row) & ~(np.isnan(background) & np.isnan(row))
    played = np.flatnonzero(differs.any(axis=0))
    values = np.zeros(len(row))
    if len(played) <= max_exact_features:
        method, (values[played], evaluated) = EXACT, _exact_values(predict, row, background, differs, played)
    else:
        method, (values[played], evaluated) = SAMPLED, _sampled_values(predict, row, background, played, n_samples)
    base = float(predict(background).mean())
    return Explanation(method, float(predict(row[None])[0]), base, values, evaluated)


def _exact_values(
    predict: Predict, row: Vector, background: Matrix, differs: Flags, varying: NDArray[np.intp]
) -> tuple[Vector, int]:
    """Give the values from all coalitions, each mixed row predicted once: where row and background agree, many are the same."""
    count = len(varying)
    coalitions = np.arange(2**count)
    bits = 1 << np.arange(count)
    differing = differs[:, varying] @ bits  # of each background row, as a coalition
    mixed, place = np.unique((coalitions[:, None] & differing) + (np.arange(len(background)) << count), return_inverse=True)
    rows = background[mixed >> count]
    rows[:, varying] = np.where(mixed[:, None] & bits, row[varying], rows[:, varying])
    worth = predict(rows)[place].reshape(len(coalitions), len(background)).mean(axis=1)
    sizes = (coalitions[:, None] & bits != 0).sum(axis=1)
    shares = np.array([1 / (count * math.comb(count - 1, size)) for size in range(count)])
    values = np.empty(count)
    for column, bit in enumerate(bits):
        without = coalitions[coalitions & bit == 0]
        values[column] = shares[sizes[without]] @ (worth[without | bit] - worth[without])
    return values, len(rows)


def _sampled_values(
    predict: Predict, row: Vector, background: Matrix, varying: NDArray[np.intp], n_samples: int
) -> tuple[Vector, int]:
    """Give the mean of what each column adds as the row's columns replace a background row's one by one.

    Each order is walked backwards too, which evens out what hangs on being early or late.
    """
    count, random = len(varying), np.random.default_rng(0)
    pairs = max(n_samples // (2 * len(background) * (count + 1)), 1)
    orders = random.permuted(np.tile(np.arange(count), (pairs * len(background), 1)), axis=1)
    orders = np.vstack([orders, orders[:, ::-1]])
    starts = np.tile(np.arange(len(background)), 2 * pairs)
    turn = np.argsort(orders, axis=1)  # when each column is replaced
    replaced = turn[:, None, :] < np.arange(count + 1)[:, None]
    rows = np.repeat(background[starts], count + 1, axis=0)
    rows[:, varying] = np.where(replaced.reshape(-1, count), row[varying], rows[:, varying])
    steps = np.diff(predict(rows).reshape(len(orders), count + 1), axis=1)
    return np.take_along_axis(steps, turn, axis=1).mean(axis=0), len(rows)
