"""Feedback rows: requests joined with their true values, as new rows of a table."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from housing.core.errors import HousingError, TableError
from housing.data.read_options import ReadOptions
from housing.ingestion.new_rows import NewRows
from housing.schema.table_schema import Schema

JoinedRow = Mapping[str, Any]  # as the server's joiner logs it: id, row, columns, value, time, ...


def parse_joined_rows(joined_rows: Iterable[JoinedRow], schema: Schema, options: ReadOptions, folder: Path) -> NewRows:
    """Return the joined rows of a server's log `folder` as rows of a table, written as its file writes them.

    The latest true value of a request's row counts.

    Raises
    ------
    HousingError
        If there are no joined rows.
    TableError
        If their columns are not those of the table.
    """
    latest: dict[tuple[str, int], tuple[int, JoinedRow]] = {}
    for line, joined in enumerate(joined_rows, start=1):
        row_id = (joined["id"], joined["row"])
        if row_id not in latest or latest[row_id][1]["time"] <= joined["time"]:
            latest[row_id] = (line, joined)
    if not latest:
        raise HousingError(f"{folder} has no joined rows. Send true values to the server's /feedback route first.")
    header = [column.name for column in schema.columns]
    rows = [(line, {**joined["columns"], schema.target.name: joined["value"]}) for line, joined in latest.values()]
    needed = {column.name for column in schema.columns if not column.nullable and column.role != "ignore"}
    unexpected = sorted({name for _, row in rows for name in (needed - row.keys()) | (row.keys() - set(header))})
    if unexpected:
        raise TableError(
            f"Joined rows in {folder} do not have the columns of table {schema.name}. Missing or unknown:"
            f" {', '.join(unexpected)}",
            [],
        )
    cells = [(line, [options.format(row.get(name)) for name in header]) for line, row in rows]
    return NewRows.from_cells(header, cells, schema, options)
