"""Prepared tables: a validated table as Parquet, with the split as a column."""

from pathlib import Path

import numpy as np

from housing.core.files import atomic_write
from housing.data.settings import TableSettings
from housing.data.split import SplitSettings, split_table
from housing.data.table import FINGERPRINT_ATTRIBUTE, SPLIT_COLUMN, labelled_rows, read_frame, read_table


def prepare(settings: TableSettings, split: SplitSettings, out: Path) -> str:
    """Write the prepared table atomically, and return the number of rows by part as text.

    `housing.data.table.read_table` reads it as the same table, with the same fingerprint.
    """
    table = read_table(settings)
    parts = split_table(table, split)
    frame = read_frame(settings.path, table.schema, settings.read)
    frame = frame.iloc[labelled_rows(table.schema, frame)].reset_index(drop=True)
    frame[SPLIT_COLUMN] = ""
    counts = []
    for name, rows in (("train", parts.train), ("valid", parts.valid), ("test", parts.test)):
        frame.loc[np.sort(rows), SPLIT_COLUMN] = name
        counts.append(f"{len(rows):,} {name}")
    n_unused = int((frame[SPLIT_COLUMN] == "").sum())
    counts += [f"{n_unused:,} unused (in a gap of the split)"] if n_unused else []
    frame.attrs[FINGERPRINT_ATTRIBUTE] = table.fingerprint
    with atomic_write(out) as partial:
        frame.to_parquet(partial, index=False)
    return f"table {settings.name}: {', '.join(counts)} rows"
