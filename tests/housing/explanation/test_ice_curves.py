"""Curves of a prediction along each column, without a server."""

import numpy as np

from housing.explanation.ice_curves import ice_curves
from housing.schema.column import Column, Matrix, Vector


def total(matrix: Matrix) -> Vector:
    """Return the sum of each row, in which missing values are 0."""
    return np.asarray(np.nansum(matrix, axis=1))


def test_each_curve_changes_one_column_and_keeps_the_others() -> None:
    columns = [Column("size", "float"), Column("rooms", "int"), Column("kind", "category", categories=("flat", "house"))]
    reference = np.array([[0.0, 1.0, 0.0], [40.0, 5.0, 1.0]])
    curves = ice_curves(total, np.array([50.0, 3.0, 1.0]), columns, reference)
    assert curves["kind"] == {"values": ["flat", "house"], "predictions": [53.0, 54.0]}
    assert curves["rooms"] == {"values": [1, 2, 3, 4, 5], "predictions": [52.0, 53.0, 54.0, 55.0, 56.0]}
    assert (min(curves["size"]["values"]), max(curves["size"]["values"])) == (0.0, 50.0)
    assert curves["size"]["predictions"] == [value + 4.0 for value in curves["size"]["values"]]


def test_a_column_that_was_always_missing_has_one_point() -> None:
    columns = [Column("built", "int", nullable=True)]
    assert ice_curves(total, np.array([np.nan]), columns, np.full((2, 1), np.nan)) == {
        "built": {"values": [None], "predictions": [0.0]}
    }
