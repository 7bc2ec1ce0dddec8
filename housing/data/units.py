"""Units of a split: rows that depend on each other, such as the orders of a customer, and never are in two parts."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from housing.schema.column import Vector

HELD_OUT_SHARE = 10  # one in so many units is held out


@dataclass(frozen=True, eq=False)
class Units:
    """The unit of each row of a table.

    Attributes
    ----------
    name
        What the units are, in the plural, such as "locations".
    of_row
        The number of each row's unit, shape (rows,).
    in_time
        Whether the numbers follow time, so that what is held out must be the latest units.
    """

    name: str
    of_row: NDArray[np.intp]
    in_time: bool = False

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        """Return the units of some rows."""
        return type(self)(self.name, self.of_row[rows], self.in_time)

    def count(self) -> int:
        """Return the number of units."""
        return len(np.unique(self.of_row))

    def sum(self, values: Vector) -> Vector:
        """Return the sum of the values of each unit's rows, shape (units,)."""
        return np.asarray(np.bincount(np.unique(self.of_row, return_inverse=True)[1], values), dtype=np.float64)

    def hold_out(self, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return which of some rows to hold out: those of one unit in ten, or of the last tenth in time."""
        numbers, position = np.unique(self.of_row[rows], return_inverse=True)
        if self.in_time:
            return np.asarray(position >= len(numbers) - -(-len(numbers) // HELD_OUT_SHARE))
        return np.asarray(position % HELD_OUT_SHARE == 0)
