"""How far training rows speak for a row: beyond their reach, what they are like says little about it."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.features.spatial_index import SpatialIndex
from housing.schema.column import Matrix
from housing.schema.table_schema import Schema

MIN_KM = 1e-9  # km: where all rows share their places, their reach is nothing


class ApplicabilityDomain:
    """Whether a row lies away from every training row: farther than `times` a distance that the training rows keep.

    That distance is the `quantile` of how far each training row is from its nearest other. It needs no unit, so the same
    values fit a city and a country.
    """

    def __init__(self, coordinates: tuple[int, int], quantile: float, factor: float) -> None:
        if not (0.0 < quantile < 1.0 and factor > 0.0):
            raise ConfigError(
                f"features.applicability is quantile {quantile}, factor {factor}; allowed: 0 < quantile < 1, factor > 0"
            )
        self.quantile, self.factor = quantile, factor
        self.index = SpatialIndex(coordinates)
        self.arrays = self.index.arrays

    @classmethod
    def from_config(cls, schema: Schema, parameters: Mapping[str, Any] | None) -> "ApplicabilityDomain | None":
        """Give what is declared; None where nothing is, or the table has no coordinates. Raises ConfigError for another thing."""
        coordinates = schema.coordinates()
        if parameters is None or coordinates is None:
            return None
        try:
            return cls(coordinates, **parameters)
        except TypeError as error:
            raise ConfigError(f"features.applicability: {error}; allowed: quantile and factor, both numbers") from error

    def fit(self, matrix: Matrix) -> Self:
        """Learn from the places of training rows."""
        apart = SpatialIndex((self.index.coordinates[0], self.index.coordinates[1])).fit(matrix).nearest_leave_one_out(1)[0]
        self.index.fit(matrix, unique=True)
        self.arrays["threshold_km"] = np.array([self.factor * np.quantile(apart, self.quantile)])
        return self

    @property
    def parameters(self) -> dict[str, float]:
        """What `declared` takes."""
        return {"quantile": self.quantile, "factor": self.factor}

    def proximity(self, matrix: Matrix) -> NDArray[np.float64]:
        """Give 1 within the reach, 0 beyond twice of it, and what lies between on a line."""
        return np.clip(2.0 - self.index.distance_to_nearest(matrix) / max(self.arrays["threshold_km"][0], MIN_KM), 0.0, 1.0)

    def is_outside(self, matrix: Matrix) -> NDArray[np.bool_]:
        """Tell it for each row."""
        return self.index.distance_to_nearest(matrix) > self.arrays["threshold_km"][0]
