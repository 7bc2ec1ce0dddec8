"""Rows that a server was asked for and then told the true values of: what its joiner wrote, as rows that want to join a table."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from housing.core.errors import HousingError, TableError
from housing.data.new_rows import NewRows, RowCells
from housing.schema.table_schema import Schema


def to_new_rows(joined_rows: Iterable[Mapping[str, Any]], folder: Path, schema: Schema) -> NewRows:
    """Return the joined rows of a server's log folder as new rows; where a row was sent again, the last one counts.

    Raises HousingError where there are none, TableError where they cannot be rows of the table.
    """
    latest: dict[tuple[str, int], tuple[int, Mapping[str, Any]]] = {}
    for number, joined in enumerate(joined_rows, start=1):
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


def _to_cells(row: Mapping[str, Any], header: list[str]) -> RowCells:
    """Write values as cells; a float keeps every digit."""
    return ["" if row[name] is None else str(row[name]) for name in header]
