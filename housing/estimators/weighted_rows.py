"""Rows with targets and weights, as estimators are fitted on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from housing.schema.column import Vector


@dataclass(frozen=True)
class WeightedRows:
    """Rows to fit on or to validate with.

    Attributes
    ----------
    weight
        None if all rows count alike.
    masked
        The indices of columns that are missing in a second copy of all rows, which follows them; None: no second copy.
    """

    columns: NDArray[Any]
    target: Vector
    weight: Vector | None
    masked: Sequence[int] | None = None

    def with_copies(self) -> "WeightedRows":
        """Return the rows and their second copies, if there are any, as rows of one array."""
        if self.masked is None:
            return self
        n_rows = len(self.columns)
        columns = np.empty((2 * n_rows, self.columns.shape[1]), dtype=self.columns.dtype)
        columns[:n_rows] = columns[n_rows:] = self.columns
        columns[n_rows:, self.masked] = np.nan
        weight = None if self.weight is None else np.tile(self.weight, 2)
        return WeightedRows(columns, np.tile(self.target, 2), weight)
