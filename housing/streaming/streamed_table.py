"""Streamed table: a table whose matrix is on disk. Its targets, weights and times are in memory, 8 bytes a row each."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self, cast

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.data.table import Table, level_codes
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema
from housing.streaming.disk_matrix import DiskMatrix
from housing.streaming.settings import StreamSettings


@dataclass(frozen=True, eq=False, kw_only=True)
class StreamedTable(Table):
    """A table that is read in chunks.

    Attributes
    ----------
    whole
        The schema with the levels of all rows.
    codes
        By column: the codes by this schema of what is in the file of the matrix.
    read_keys
        Yields the keys of consecutive rows, or None for a selection of rows.
    fit
        Fits an estimator on column chunks over workers, or None to fit in this process.
    """

    settings: StreamSettings
    whole: Schema
    codes: Mapping[int, Vector]
    read_keys: Callable[[], Iterator[list[bytes]]] | None
    fit: Callable[..., None] | None = None

    @property
    def disk_matrix(self) -> DiskMatrix:
        """The matrix, as what it is."""
        return cast(DiskMatrix, self.matrix)

    def take(self, indices: Sequence[int] | NDArray[np.intp]) -> Self:
        """Return some rows, without a fingerprint. Their columns stay on disk."""
        rows = np.asarray(indices, dtype=np.intp)
        return replace(
            self,
            matrix=self.matrix[rows],
            target=self.target[rows],
            fingerprint="",
            weight=self.weight_of(rows),
            times=None if self.times is None else self.times[rows],
            read_keys=None,
        )

    @property
    def keys(self) -> NDArray[np.object_]:
        """Not available: the keys of all rows need more memory than their columns."""
        raise _unavailable("needs the keys of all rows at once")

    def key_batches(self) -> Iterator[list[bytes]]:
        """Yield the keys of consecutive rows."""
        if self.read_keys is None:
            raise _unavailable("needs the keys of a part of the rows")
        return self.read_keys()

    def identify(self, name: str) -> NDArray[np.object_]:
        """Not available: the values of a column as bytes need more memory than its numbers."""
        raise _unavailable(f"needs the values of column {name} of all rows at once")

    def bounded(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return up to `sample_rows` of the rows, evenly spread."""
        if len(rows) <= self.settings.sample_rows:
            return rows
        return rows[np.linspace(0, len(rows) - 1, self.settings.sample_rows).astype(np.intp)]

    def encoded_as(self, learned: Schema) -> Self:
        """Return the table encoded with the levels that another schema of the same columns has learned."""
        if learned.levels == self.schema.levels:
            return self
        schema = self.schema.with_levels(learned.levels)
        codes = dict(self.codes)
        for index, (before, after) in enumerate(zip(self.whole.features, schema.features, strict=True)):
            if after.is_learned:
                new = level_codes(before, after)
                codes[index] = new[np.where(np.isnan(codes[index]), len(new) - 1, codes[index]).astype(np.intp)]
        return replace(self, schema=schema, matrix=cast(Matrix, self.disk_matrix.with_codes(codes)))


def _unavailable(need: str) -> ConfigError:
    return ConfigError(f"engine=stream and dask: this {need}. Use split=hash, or engine=memory.")
