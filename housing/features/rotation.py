"""Rotated coordinates: axes along which a tree can split a map diagonally."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema


class Rotation:
    """Latitude and longitude, rotated by several angles. A table without coordinates gets no columns.

    Parameters
    ----------
    schema
        The columns of the table.
    degrees
        The angles.
    """

    is_local = True

    def __init__(self, schema: Schema, degrees: Sequence[float]) -> None:
        self.coordinates = schema.coordinates()
        angles = degrees if self.coordinates else []
        radians = np.radians(np.asarray(angles, dtype=np.float64))
        cosine, sine = np.cos(radians), np.sin(radians)
        self.latitude_weights, self.longitude_weights = (
            np.stack([sine, cosine], axis=-1).ravel(),
            np.stack([cosine, -sine], axis=-1).ravel(),
        )
        self.names = [f"rotated_{degree:g}_{axis}" for degree in angles for axis in ("x", "y")]
        self.arrays: dict[str, NDArray[np.float64]] = {}

    def fit(self, _matrix: Matrix, _target: Vector) -> Self:
        """Do nothing: the angles are fixed."""
        return self

    def transform(self, matrix: Matrix) -> Matrix:
        """Return x and y in degrees per angle, shape (rows, 2 * angles)."""
        if self.coordinates is None:
            return np.empty((len(matrix), 0))
        latitude, longitude = (matrix[:, index, None] for index in self.coordinates)
        return self.longitude_weights * longitude + self.latitude_weights * latitude
