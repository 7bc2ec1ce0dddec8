"""Matrix on disk: the encoded columns of a table, of which only the rows in use are in memory.

The columns are one after the other in the file, so that a column is read without the others.
"""

import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from housing.bundle.ensemble import CHUNK
from housing.core.errors import DiskFullError, HousingError
from housing.schema.column import Matrix, Vector

BLOCK_ROWS = 1 << 20  # of a column that are read at once: 8 MB
MAX_SPREAD = 300  # rows between two selected ones from which on single numbers are read: a system call costs as much
NUMBER = np.dtype(np.float64)
UNSEEN = -1.0  # the code in the file of a value that is no level

Rows = NDArray[np.intp]


class ColumnFile:
    """Columns of numbers in a temporary file without a name. It vanishes with the process, even if that is killed.

    Raises
    ------
    DiskFullError
        If the folder of temporary files lacks the space.
    """

    def __init__(self, n_rows: int, n_columns: int) -> None:
        self.n_rows, self.n_columns = n_rows, n_columns
        needed, folder = n_rows * n_columns * NUMBER.itemsize, tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise DiskFullError(
                f"engine=stream needs {needed / 1e9:.1f} GB for the encoded table in {folder} ({free / 1e9:.1f} GB are free)."
                " Set the environment variable TMPDIR to a folder on a larger disk."
            )
        with tempfile.TemporaryFile() as file:
            self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)

    def write(self, start: int, matrix: Matrix) -> None:
        """Write rows, shape (rows, columns), from the row `start` on."""
        for column, numbers in enumerate(matrix.T if len(matrix) else ()):
            content = np.ascontiguousarray(numbers, dtype=NUMBER).data.cast("B")
            position = self._position(column, start)
            while content:
                written = os.pwrite(self._descriptor, content, position)
                content, position = content[written:], position + written

    def read(self, column: int, start: int, stop: int) -> Vector:
        """Return the numbers of a column in the rows from `start` to before `stop`."""
        numbers = np.empty(stop - start, dtype=NUMBER)
        if not numbers.size:
            return numbers
        content, position = numbers.data.cast("B"), self._position(column, start)
        while content:
            n_bytes = os.preadv(self._descriptor, [content], position)
            if not n_bytes:
                raise EOFError(f"rows {start} to {stop} of column {column} are not in the file")
            content, position = content[n_bytes:], position + n_bytes
        return numbers

    def _position(self, column: int, row: int) -> int:
        return (column * self.n_rows + row) * NUMBER.itemsize


@dataclass(frozen=True, eq=False)
class DiskMatrix:
    """Rows of a column file, indexed like a numpy array of the shape (rows, columns).

    A slice of rows, a selection of columns and a selection of few rows are arrays. A selection of many rows stays on disk:
    `matrix[rows][start:stop]` reads a part of it, and `matrix[rows][:]` all of it, like a dataset of h5py.

    Attributes
    ----------
    n_rows
        The number of rows in the file that are in use.
    rows
        The selected rows of the file, or None for all.
    codes
        By column: what the codes of its levels become, followed by that of unseen and of missing values.
    """

    file: ColumnFile
    n_rows: int
    rows: Rows | None = None
    codes: Mapping[int, Vector] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.n_rows if self.rows is None else len(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of rows and columns."""
        return len(self), self.file.n_columns

    def with_codes(self, codes: Mapping[int, Vector]) -> Self:
        """Return the same rows with other codes of levels."""
        return replace(self, codes=codes)

    def __getitem__(self, key: Any) -> Any:
        """Return selected rows, or selected columns of selected rows."""
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        selected = replace(self, rows=self._select(rows))
        if isinstance(columns, int | np.integer):
            return selected._read(int(columns))
        if columns != slice(None) if isinstance(columns, slice) else True:
            return selected._read_columns(np.arange(self.file.n_columns)[_as_index(columns)].tolist())
        if isinstance(rows, slice) or len(selected) <= CHUNK:
            return selected._read_columns(range(self.file.n_columns))
        return selected

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Refuse to become an array: the rows may need more memory than there is."""
        raise HousingError(
            f"engine=stream and dask cannot hold the columns of {len(self):,} rows in memory at once. Use engine=memory."
        )

    def _select(self, key: Any) -> Rows | None:
        if isinstance(key, slice):
            if key == slice(None):
                return self.rows
            return np.arange(*key.indices(len(self))) if self.rows is None else self.rows[key]
        index = np.asarray(key)
        index = np.flatnonzero(index) if index.dtype == np.bool_ else index.astype(np.intp, copy=False)
        return index if self.rows is None else self.rows[index]

    def _read_columns(self, columns: Sequence[int]) -> Matrix:
        matrix = np.empty((len(self), len(columns)))
        for position, column in enumerate(columns):
            matrix[:, position] = self._read(column)
        return matrix

    def _read(self, column: int) -> Vector:
        """Return the selected rows of a column."""
        numbers = self._read_block(column, self.rows) if self.rows is not None else self.file.read(column, 0, self.n_rows)
        return self._recode(numbers, self.codes[column]) if column in self.codes else numbers

    def _read_block(self, column: int, rows: Rows) -> Vector:
        if not rows.size:
            return np.empty(0)
        first, last = int(rows.min()), int(rows.max())
        if last - first >= MAX_SPREAD * len(rows):
            return np.array([self.file.read(column, row, row + 1)[0] for row in rows.tolist()])
        if last - first < BLOCK_ROWS:
            return self.file.read(column, first, last + 1)[rows - first]
        numbers, middle = np.empty(len(rows)), (first + last) // 2
        for half in (np.flatnonzero(rows <= middle), np.flatnonzero(rows > middle)):
            numbers[half] = self._read_block(column, rows[half])
        return numbers

    @staticmethod
    def _recode(numbers: Vector, codes: Vector) -> Vector:
        index = np.where(np.isnan(numbers), len(codes) - 1, np.where(numbers == UNSEEN, len(codes) - 2, numbers))
        return codes[index.astype(np.intp)]


def _as_index(columns: Any) -> Any:
    return columns if isinstance(columns, slice) else np.asarray(columns, dtype=np.intp)
