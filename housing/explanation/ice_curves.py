"""Individual conditional expectation (ICE): how a prediction changes along each column, with the other columns fixed.

Goldstein et al., "Peeking Inside the Black Box", JCGS 24 (2015) 44-65.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from housing.explanation.shapley import Predict
from housing.schema.column import Column, Matrix, Vector

GRID_POINTS = 41  # of a numeric column
DATE_POINTS = 10  # about so many of a date
MAX_LEVELS = 41  # of a category


def ice_curves(predict: Predict, row: Vector, columns: Sequence[Column], reference: Matrix) -> dict[str, dict[str, list[Any]]]:
    """Return the `values` of a grid and the `predictions` there, by column. Texts lie on no line and have no curve.

    Parameters
    ----------
    predict
        Function that predicts rows. It is called once.
    row
        The row to explain, shape (features + components,).
    columns
        The features of the row.
    reference
        Rows that span the range where predictions can be trusted, shape (rows, features + components).
    """
    varied = [(index, column) for index, column in enumerate(columns) if not column.is_free_text]
    if not varied:
        return {}
    grids = [_grid_values(column, row[index], reference[:, index]) for index, column in varied]
    rows = np.repeat(row[None], sum(map(len, grids)), axis=0)
    ends = np.cumsum([len(values) for values in grids])
    for (index, _), values, end in zip(varied, grids, ends, strict=True):
        rows[end - len(values) : end, index] = values
    predictions = np.split(predict(rows), ends[:-1])
    return {
        column.name: {"values": [column.decode(value) for value in values.tolist()], "predictions": predicted.tolist()}
        for (_, column), values, predicted in zip(varied, grids, predictions, strict=True)
    }


def _grid_values(column: Column, current: float, reference: Vector) -> Vector:
    """Return levels, or numbers over the range of the reference and the current value. Missing comes last."""
    missing = [np.nan] if column.nullable else []
    if not column.is_continuous:
        levels = range(min(max(len(column.categories), 2), MAX_LEVELS))  # learned levels begin with the most frequent
        return np.array([*levels, *([] if np.isnan(current) or current in levels else [current]), *missing], dtype=np.float64)
    known = np.append(reference, current)
    known = known[~np.isnan(known)]
    if not known.size:
        return np.array(missing)
    numbers = np.linspace(known.min(), known.max(), GRID_POINTS)
    if column.type == "int":
        numbers = np.round(numbers)
    if column.type == "date":  # shown as text, so fewer and only those that the text can express
        numbers = np.array([column.encode(column.decode(number)) for number in numbers[:: GRID_POINTS // DATE_POINTS]])
    own = [] if np.isnan(current) else [current]
    return np.append(np.unique([*numbers, *own]), missing)
