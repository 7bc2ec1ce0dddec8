"""Reference histograms: the distribution of training rows and predictions, against which a server measures drift."""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from housing.schema.column import Column, Matrix, Vector
from housing.schema.histogram_bins import bin_names
from housing.schema.table_schema import Schema

N_BINS = 10


def histogram_reference(schema: Schema, matrix: Matrix, predictions: Vector) -> dict[str, Any]:
    """Return a histogram of each feature column and of the predictions.

    Numbers and dates are binned by the training deciles. A category or bool has one bin per level, see `histogram_bins`.

    Parameters
    ----------
    schema
        The columns of the table.
    matrix
        Training rows, shape (rows, features).
    predictions
        Predictions, shape (rows,), in the target's unit.

    Returns
    -------
    dict
        `rows`, `columns` (a histogram per name) and `prediction` (a histogram). A histogram has the inner `edges` of its
        right-closed bins, the `shares` of the rows per bin, the share of `missing` values, and the `lowest` and `highest`
        value (None if all are missing). Shares and `missing` add up to 1.
    """
    columns = {column.name: column_histogram(column, matrix[:, index]) for index, column in enumerate(schema.features)}
    return {"rows": len(matrix), "columns": columns, "prediction": column_histogram(schema.target, predictions)}


def column_histogram(column: Column, numbers: Vector) -> dict[str, Any]:
    """Return the histogram of a column's encoded values, shape (rows,). See `histogram_reference`."""
    present = numbers[~np.isnan(numbers)]
    edges: Vector
    if column.is_continuous:
        deciles = np.quantile(present, np.arange(1, N_BINS) / N_BINS) if present.size else np.empty(0)
        edges = np.unique(deciles).astype(np.float64)
    else:
        names = bin_names(column)
        edges = np.flatnonzero([name != following for name, following in pairwise(names)]).astype(np.float64) + 0.5
    counts = bin_counts(numbers, edges)
    total = max(len(numbers), 1)
    lowest, highest = (float(present.min()), float(present.max())) if present.size else (None, None)
    return {
        "edges": edges.tolist(),
        "shares": (counts / total).tolist(),
        "missing": float(len(numbers) - present.size) / total,
        "lowest": lowest,
        "highest": highest,
    }


def bin_counts(numbers: Vector, edges: Vector) -> NDArray[np.intp]:
    """Return the number of values per right-closed bin, shape (edges + 1,). NaN is in no bin."""
    return np.bincount(np.searchsorted(edges, numbers[~np.isnan(numbers)], side="left"), minlength=len(edges) + 1)
