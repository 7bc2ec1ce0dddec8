"""Units of a split: rows that depend on each other, such as the orders of a customer, and never are in two parts."""

from dataclasses import dataclass
from typing import Any, Self

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
    times
        The time of each row, which is equal for the rows of a unit, or None if units have no order.
    """

    name: str
    of_row: NDArray[np.intp]
    times: Vector | None = None

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        """Return the units of some rows."""
        return type(self)(self.name, self.of_row[rows], None if self.times is None else self.times[rows])

    @property
    def fold_keys(self) -> NDArray[Any]:
        """The values that folds are made by: the times of the rows, or else the numbers of their units."""
        return self.of_row if self.times is None else self.times

    def count(self) -> int:
        """Return the number of units."""
        return len(np.unique(self.of_row))

    def sum(self, values: Vector) -> Vector:
        """Return the sum of the values of each unit's rows, shape (units,)."""
        return np.asarray(np.bincount(np.unique(self.of_row, return_inverse=True)[1], values), dtype=np.float64)

    def hold_out(self, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return which of some rows to hold out: those of one unit in ten, or the last tenth in time."""
        if self.times is not None:
            times = self.times[rows]
            held_out = times >= np.sort(times)[-max(1, len(rows) // HELD_OUT_SHARE)]
        else:
            held_out = np.unique(self.of_row[rows], return_inverse=True)[1] % HELD_OUT_SHARE == 0
        return np.arange(len(rows)) % HELD_OUT_SHARE == 0 if held_out.all() else np.asarray(held_out)  # if all is one unit
