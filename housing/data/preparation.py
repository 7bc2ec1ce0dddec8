"""Prepared tables: a validated table as Parquet, with the split as a column."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from housing.core.files import atomic_write
from housing.data.settings import TableSettings
from housing.data.split import SplitSettings, split_table
from housing.data.table import FINGERPRINT_ATTRIBUTE, SPLIT_COLUMN, labelled_rows, read_frame, read_table

UNUSED = "unused"


@dataclass(frozen=True)
class PreparedTable:
    """A prepared table.

    Attributes
    ----------
    out
        The Parquet file.
    rows
        The number of rows by part: train, valid, test, and unused rows in a gap of the split.
    """

    table: str
    out: Path
    rows: dict[str, int]

    def __str__(self) -> str:
        notes = {UNUSED: " (in a gap of the split)"}
        counts = [f"{rows:,} {part}{notes.get(part, '')}" for part, rows in self.rows.items() if rows or part != UNUSED]
        return f"table {self.table}: {', '.join(counts)} rows"


def prepare(settings: TableSettings, split: SplitSettings, out: Path) -> PreparedTable:
    """Write the prepared table atomically, and return the number of rows by part.

    `housing.data.table.read_table` reads it as the same table, with the same fingerprint.
    """
    table = read_table(settings)
    parts = split_table(table, split)
    frame = read_frame(settings.path, table.schema, settings.read)
    frame = frame.iloc[labelled_rows(table.schema, frame)].reset_index(drop=True)
    frame[SPLIT_COLUMN] = ""
    counts = {}
    for name, rows in (("train", parts.train), ("valid", parts.valid), ("test", parts.test)):
        frame.loc[np.sort(rows), SPLIT_COLUMN] = name
        counts[name] = len(rows)
    counts[UNUSED] = int((frame[SPLIT_COLUMN] == "").sum())
    frame.attrs[FINGERPRINT_ATTRIBUTE] = table.fingerprint
    with atomic_write(out) as partial:
        frame.to_parquet(partial, index=False)
    return PreparedTable(settings.name, out, counts)
