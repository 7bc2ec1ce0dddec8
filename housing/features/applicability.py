"""Applicability domain: the area near training rows, in which local features are meaningful.

Beyond a threshold distance from every training row, statistics of the nearest training rows say little about a row.
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.features.spatial_index import SpatialIndex
from housing.schema.column import Matrix
from housing.schema.table_schema import Schema

MIN_KM = 1e-9  # avoids a division by zero if most training rows share their locations


class ApplicabilityDomain:
    """The area within a threshold distance of the training rows.

    The threshold is `factor` times a quantile of the distances from each training row to its nearest neighbour. It adapts to
    the density of the rows, so the same settings suit a city and a country.

    Parameters
    ----------
    coordinates
        Indices of latitude and longitude in the matrix.
    quantile
        Quantile of the nearest-neighbour distances, between 0 and 1.
    factor
        Multiple of that quantile.

    Attributes
    ----------
    arrays
        Fitted state: distinct locations of the training rows and `threshold_km`, shape (1,), in km.
    """

    def __init__(self, coordinates: tuple[int, int], quantile: float, factor: float) -> None:
        if not (0.0 < quantile < 1.0 and factor > 0.0):
            raise ConfigError(
                f"applicability needs a quantile between 0 and 1 and a factor above 0 (got quantile={quantile}, factor={factor})."
            )
        self.quantile, self.factor = quantile, factor
        self.index = SpatialIndex(coordinates)
        self.arrays = self.index.arrays

    @classmethod
    def from_config(cls, schema: Schema, parameters: Mapping[str, Any] | None) -> "ApplicabilityDomain | None":
        """Return the domain that a config declares, or None if it declares none or the table has no coordinates.

        Raises
        ------
        ConfigError
            If a parameter is unknown, missing or out of range.
        """
        coordinates = schema.coordinates()
        if parameters is None or coordinates is None:
            return None
        try:
            return cls(coordinates, **parameters)
        except TypeError as error:
            raise ConfigError(f"applicability needs the numbers quantile and factor (got {dict(parameters)}): {error}") from error

    def fit(self, matrix: Matrix) -> Self:
        """Learn the threshold from the locations of training rows, shape (rows, features)."""
        nearest_km = SpatialIndex((self.index.coordinates[0], self.index.coordinates[1])).fit(matrix).nearest_leave_one_out(1)[0]
        self.index.fit(matrix, unique=True)
        self.arrays["threshold_km"] = np.array([self.factor * np.quantile(nearest_km, self.quantile)])
        return self

    @property
    def parameters(self) -> dict[str, float]:
        """The parameters that `from_config` reads."""
        return {"quantile": self.quantile, "factor": self.factor}

    def proximity(self, matrix: Matrix) -> NDArray[np.float64]:
        """Return weights, shape (rows,): 1 up to the threshold, then falling linearly to 0 at twice the threshold."""
        return np.clip(2.0 - self.index.distance_to_nearest(matrix) / max(self.arrays["threshold_km"][0], MIN_KM), 0.0, 1.0)

    def is_outside(self, matrix: Matrix) -> NDArray[np.bool_]:
        """Return a mask, shape (rows,): True for a row beyond the threshold from every training row."""
        return self.index.distance_to_nearest(matrix) > self.arrays["threshold_km"][0]
