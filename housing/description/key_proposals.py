"""Proposed keys: a column that identifies each row, so that a row keeps its part of the split and is known again later."""

import re
from collections.abc import Iterator

from housing.description.cells import MISSING_MARKS
from housing.description.decisions import KEY_NAME, Decision, Decisions
from housing.description.profile import ColumnProfile, FileProfile

MAX_REPEATED_SHARE = 0.01  # rows with the features of an earlier row: a key puts them into different parts of a split
KEY_CELL = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{24,64}|[A-Za-z]{1,4}[-_]?\d{3,}")


def propose_key(profile: FileProfile, decisions: Decisions, n_repeated: int) -> Decisions:
    """Return the decisions with the first true identifier as the key.

    Parameters
    ----------
    n_repeated
        Rows with the features of an earlier row. If they are more than a few, no key is proposed: without a key, the split keeps
        such rows together.
    """
    if n_repeated > MAX_REPEATED_SHARE * profile.n_rows:
        return decisions
    return decisions.replaced(list(_keys(profile, decisions))[:1])


def _keys(profile: FileProfile, decisions: Decisions) -> Iterator[Decision]:
    for decision in decisions.columns:
        column = profile.column(decision.name)
        if decision.attributes.get("role") == "ignore" and _is_key(column):
            is_integer = column.n_integers == column.n_present and not column.n_leading_zeros
            evidence = (
                f"{column.n_present:,} different values: a row keeps its part of the split by it. Send it with requests, so that"
                " feedback can become rows; or declare {role: ignore} if it only counts the lines of this file"
            )
            yield Decision(decision.name, {"type": "int" if is_integer else "text", "role": "key"}, (evidence,))


def _is_key(column: ColumnProfile) -> bool:
    """Return whether each row has a value of its own, and the name or the form of the values is that of an identifier."""
    if column.n_present < column.n_rows or len(column.distinct) < column.n_rows:
        return False
    is_number = column.n_numbers == column.n_present and not column.n_leading_zeros
    if is_number and column.n_integers < column.n_numbers:
        return False
    if KEY_NAME.fullmatch(column.name.strip()):
        return True
    return all(KEY_CELL.fullmatch(cell.strip()) for cell in column.sample if cell not in MISSING_MARKS)
