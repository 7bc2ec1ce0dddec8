"""TODO docstring."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from housing.schema.column import Column, Matrix, Vector
from housing.schema.table_schema import Schema

N_BINS = 10


def histogram_reference(schema: Schema, matrix: Matrix, predictions: Vector) -> dict[str, Any]:
    """Give the bins of each feature column and of the prediction, with the share of the training rows in each.

    A number has the training deciles as inner edges (a bin is right-closed), a category or bool one bin a level; rows
    with the value missing are a share of their own. Shares of a column add up to 1. Beside them stand the lowest and the
    highest value, None where all are missing.
    """
    columns = {column.name: _histogram(column, matrix[:, place]) for place, column in enumerate(schema.features)}
    return {"rows": len(matrix), "columns": columns, "prediction": _histogram(schema.target, predictions)}


def _histogram(column: Column, numbers: Vector) -> dict[str, Any]:
    present = numbers[~np.isnan(numbers)]
    edges: Vector
    if column.is_number:
        deciles = np.quantile(present, np.arange(1, N_BINS) / N_BINS) if present.size else np.empty(0)
        edges = np.unique(deciles).astype(np.float64)
    else:
        edges = np.arange(max(len(column.categories), 2) - 1, dtype=np.float64) + 0.5
    counts = bin_counts(numbers, edges)
    total = max(len(numbers), 1)
    ends = (float(present.min()), float(present.max())) if present.size else (None, None)
    return {
        "edges": edges.tolist(),
        "shares": (counts / total).tolist(),
        "missing": float(len(numbers) - present.size) / total,
        "lowest": ends[0],
        "highest": ends[1],
    }


def bin_counts(numbers: Vector, edges: Vector) -> NDArray[np.intp]:
    """Count the numbers in each right-closed bin between inner edges; a missing number is in none."""
    return np.bincount(np.searchsorted(edges, numbers[~np.isnan(numbers)], side="left"), minlength=len(edges) + 1)
