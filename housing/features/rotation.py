"""Rotated coordinates: a tree splits along axes, a coast does not run along one."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema


class Rotation:
    """Latitude and longitude in axes turned by each of `degrees`; no column where the table has no coordinates."""

    is_local = True

    def __init__(self, schema: Schema, degrees: Sequence[float]) -> None:
        self.coordinates = schema.coordinates()
        turned = degrees if self.coordinates else []
        radians = np.radians(np.asarray(turned, dtype=np.float64))
        cosine, sine = np.cos(radians), np.sin(radians)
        self.latitude_weights, self.longitude_weights = (
            np.stack([sine, cosine], axis=-1).ravel(),
            np.stack([cosine, -sine], axis=-1).ravel(),
        )
        self.names = [f"rotated_{degree:g}_{axis}" for degree in turned for axis in ("x", "y")]
        self.arrays: dict[str, NDArray[np.float64]] = {}

    def fit(self, _matrix: Matrix, _target: Vector) -> Self:
        """Learn nothing: the angles are given."""
        return self

    def transform(self, matrix: Matrix) -> Matrix:
        """Give x and y (degrees) for each angle."""
        if self.coordinates is None:
            return np.empty((len(matrix), 0))
        latitude, longitude = (matrix[:, place, None] for place in self.coordinates)
        return self.longitude_weights * longitude + self.latitude_weights * latitude
