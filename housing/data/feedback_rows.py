"""Rows that a server was asked for and then told the true values of: what its joiner wrote, as rows that want to join a table."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from housing.core.errors import HousingError, TableError
from housing.data.new_rows import NewRows, RowCells
from housing.schema.table_schema import Schema
from server.prediction_log.rotating_file import JOINED, iter_lines, list_files


def read_joined_rows(folder: Path, schema: Schema) -> NewRows:
    """Read the joined rows of a server's log folder; where a row was sent again, the last one counts.

    Raises HousingError where there are none, TableError where they cannot be rows of the table.
    """
    latest: dict[tuple[str, int], tuple[int, dict[str, Any]]] = {}
    for number, joined in enumerate(_read_joined(folder), start=1):
        row_id = (joined["id"], joined["row"])
        if row_id not in latest or latest[row_id][1]["time"] <= joined["time"]:
            latest[row_id] = (number, joined)
    if not latest:
        raise HousingError(f"{folder} has no joined rows: no feedback was given to this server, or not yet matched")
    header = [column.name for column in schema.columns]
    rows = [(number, {**joined["columns"], schema.target.name: joined["value"]}) for number, joined in latest.values()]
    others = sorted({name for _, row in rows for name in set(row) ^ set(header)})
    if others:
        raise TableError(f"{folder}: the joined rows do not have the columns of table {schema.name}: {', '.join(others)}", [])
    return NewRows.from_cells(header, [(number, _to_cells(row, header)) for number, row in rows], schema)


def _read_joined(folder: Path) -> Iterator[dict[str, Any]]:
    for path in list_files(folder, JOINED):
        yield from map(json.loads, iter_lines(path))


def _to_cells(row: dict[str, Any], header: list[str]) -> RowCells:
    """Write values as cells; a float keeps every digit."""
    return ["" if row[name] is None else str(row[name]) for name in header]
