"""Selected rows of a matrix, which are copied where they are used instead of all at once."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from housing.schema.column import Matrix, Vector


class SelectedRows:
    """Some rows of a matrix or vector in memory, indexed like an array of these rows.

    A slice or a selection of rows is an array, and so are selected columns. A copy of all rows at once would take as much memory
    as the table again.

    Parameters
    ----------
    matrix
        Shape (all rows, columns) or (all rows,).
    rows
        Indices of the selected rows.
    """

    def __init__(self, matrix: Matrix | Vector, rows: NDArray[np.intp]) -> None:
        self._matrix, self._rows = matrix, rows

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of rows and columns."""
        return len(self), self._matrix.shape[1]

    def __getitem__(self, key: Any) -> Any:
        """Return selected rows, or one or several columns of selected rows."""
        rows, columns = key if isinstance(key, tuple) else (key, None)
        if columns is None:
            return self._matrix[self._rows[rows]]
        if isinstance(columns, int | np.integer):
            return self._matrix[self._rows[rows], columns]
        selected = [self._matrix[self._rows[rows], column] for column in columns]
        return np.stack(selected).T if selected else np.empty((len(self._rows[rows]), 0))  # in the order in memory of an array's


def select_rows(matrix: Any, rows: NDArray[np.intp]) -> Any:
    """Return some rows of a table's matrix or target without a copy. A matrix on disk selects its rows itself."""
    return SelectedRows(matrix, rows) if isinstance(matrix, np.ndarray) else matrix[rows]
