"""Rows of a file that are no data: the header again, units below it, and totals and notes at the end."""

import re
from collections.abc import Iterator

from housing.description.cells import MISSING_MARKS
from housing.description.profile import ColumnProfile, FileProfile

TOTAL = re.compile(
    r"(grand |sub)?-?(total|totals|sum|summe|gesamt|average|mean|mittelwert|durchschnitt|all)\b:?.*", re.IGNORECASE
)
MAX_UNIT = 12  # characters of a unit
MIN_NUMBER_SHARE = 0.9


def find_other_rows(profile: FileProfile) -> dict[str, str]:
    """Return the first cell of each row that is no data, with a sentence about it."""
    return dict([*_units(profile), *_totals(profile), *_headers(profile)])


def _headers(profile: FileProfile) -> Iterator[tuple[str, str]]:
    """Yield the header if it stands among the rows again, as in files that were joined."""
    first = profile.columns[0]
    if profile.n_headers and first.name.strip() and _count(first, first.name) == profile.n_headers:
        yield first.name, f"The header stands among the rows again ({profile.n_headers:,} times), so it is skipped there."


def _units(profile: FileProfile) -> Iterator[tuple[str, str]]:
    """Yield the row below the header if it has a text in each column of numbers, and nothing else in common with the others."""
    cells = profile.first_row
    if len(cells) != len(profile.columns) or not cells[0].strip():
        return
    numeric = [cell for cell, column in zip(cells, profile.columns, strict=True) if _is_numeric(column)]
    is_unit_row = len(numeric) >= 2 and all(0 < len(cell) <= MAX_UNIT and cell not in MISSING_MARKS for cell in numeric)
    if is_unit_row and not any(map(_has_digit_first, numeric)) and _occurs_once(profile.columns[0], cells[0]):
        yield cells[0], f"The row below the header has units ({', '.join(cells[:4])}), so it is skipped."


def _totals(profile: FileProfile) -> Iterator[tuple[str, str]]:
    for cells in profile.last_rows:
        if not cells or not cells[0].strip() or not _occurs_once(profile.columns[0], cells[0]):
            continue
        is_note = len(profile.columns) > 2 and not any(cell.strip() for cell in cells[1:]) and not _has_digit_first(cells[0])
        if is_note or TOTAL.fullmatch(cells[0].strip()):
            yield cells[0], f"A row at the end starts with {cells[0][:60]!r}, so it is taken as a total or a note and skipped."


def _is_numeric(column: ColumnProfile) -> bool:
    return column.n_present > 2 and column.n_numbers >= MIN_NUMBER_SHARE * (column.n_present - 2)


def _has_digit_first(cell: str) -> bool:
    return cell.strip()[:1].isdigit()


def _occurs_once(column: ColumnProfile, cell: str) -> bool:
    """Return whether no other row starts with the cell. A row of another length is not counted in its column."""
    return _count(column, cell) <= 1


def _count(column: ColumnProfile, cell: str) -> int:
    return (column.levels or column.misfits).get(cell, 0)
