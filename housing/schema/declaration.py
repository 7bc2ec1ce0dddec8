"""Checks of a column's declaration, such as contradictions between its type and its role."""

import math
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from housing.schema.dates import is_date_format
from housing.schema.text_projection import MAX_COMPONENTS
from housing.schema.written_numbers import PARSES

if TYPE_CHECKING:
    from housing.schema.column import Column

TYPES = ("float", "int", "bool", "category", "ordinal", "date", "text")
UNORDERED_TYPES = ("category", "text")  # their codes cannot be averaged and compared
AUTO = "auto"  # in place of categories: their levels are learned
UNSEEN = ("refuse", "missing", "other")
FEATURE_ROLES = ("feature", "latitude", "longitude")
AUDIT = "audit"  # the role of a column by which errors are sliced, and that no model and no bundle receives
IDENTIFIER_ROLES = ("key", "group", AUDIT)  # their values are compared, never computed with
ROLES = (*FEATURE_ROLES, *IDENTIFIER_ROLES, "time", "weight", "ignore", "target")
NUMERIC_ROLES = ("latitude", "longitude", "time", "weight", "target")
TEXT_ROLES = ("feature", *IDENTIFIER_ROLES, "ignore")


def find_faults(column: "Column") -> list[str]:
    """Return everything that is wrong with a declaration, one sentence each."""
    return [
        fault
        for find in (_attribute_faults, _role_faults, _bound_faults, _category_faults, _text_faults, _free_text_faults)
        for fault in find(column)
    ]


def _attribute_faults(column: "Column") -> Iterator[str]:
    if column.nullable not in (True, False):
        yield f"nullable must be true or false (got {column.nullable!r})."
    if column.type not in TYPES:
        yield f"type must be one of {', '.join(TYPES)} (got {column.type!r})."
    if not (_is_finite_number(column.scale) and column.scale > 0):
        yield f"scale must be a finite number above 0 (got {column.scale!r})."
    elif column.scale != 1 and not (column.unit and column.is_number):
        yield "scale needs a unit and the type float or int."


def _role_faults(column: "Column") -> Iterator[str]:
    if column.role not in ROLES:
        yield f"role must be one of {', '.join(ROLES)} (got {column.role!r})."
        return
    if column.type == "text" and column.role not in TEXT_ROLES:
        yield f"the type text needs the role {', '.join(TEXT_ROLES[:-1])} or {TEXT_ROLES[-1]} (got {column.role})."
    if column.role == AUDIT and column.type == "date":
        yield "the role audit does not take the type date. Add a column with periods, such as years, with type: int or category."
    if column.role in NUMERIC_ROLES:
        if not column.is_number and (column.role, column.type) != ("time", "date"):
            yield f"the role {column.role} needs the type float or int (got {column.type})."
        if column.nullable:
            yield f"a column with the role {column.role} cannot be nullable."


def _bound_faults(column: "Column") -> Iterator[str]:
    bounds = [bound for bound in (column.min, column.max) if bound is not None]
    if not all(map(_is_finite_number, bounds)):
        yield f"min and max must be finite numbers (got {column.min!r} and {column.max!r})."
    elif bounds and not column.is_number:
        yield f"min and max need the type float or int (got {column.type})."
    elif len(bounds) > 1 and bounds[0] >= bounds[1]:
        yield f"min must be below max (got {column.min} and {column.max})."


def _category_faults(column: "Column") -> Iterator[str]:
    if (column.categories or column.is_learned) and not column.has_levels:
        yield f"categories need the type category (got {column.type})."
    if column.type == "category" and not (column.categories or column.is_learned):
        yield "a column of type category needs categories: a list of strings, or auto."
    if column.type == "ordinal" and not (column.categories and not column.is_learned):
        yield "a column of type ordinal needs categories: a list of strings, the lowest first."
    if column.is_learned and not column.is_feature:
        yield f"categories: auto needs the role feature (got {column.role}). Declare an identifier with type: text."
    yield from _unseen_faults(column)
    declared: tuple[Any, ...] = column.categories
    for category in declared:
        if not isinstance(category, str):
            yield (
                f"categories must be strings, but YAML reads one of them as {category!r} ({type(category).__name__})."
                " Put it in quotes, as it is written in the table."
            )
    duplicates = [str(category) for category, count in Counter(column.categories).items() if count > 1]
    if duplicates:
        yield f"categories must be unique (got {', '.join(sorted(duplicates))} more than once)."


def _text_faults(column: "Column") -> Iterator[str]:
    """Yield faults of the attributes that say how numbers and dates are written."""
    if column.type == "date" and not is_date_format(column.format):
        yield f"format must have year and month in the directives of strptime, such as %d.%m.%Y (got {column.format!r})."
    elif column.type != "date" and column.format:
        yield f"format needs the type date (got {column.type})."
    if column.parse not in ("", *PARSES):
        yield f"parse must be {' or '.join(PARSES)} (got {column.parse!r})."
    elif column.parse and (not column.is_number or column.is_identifier):
        got = f"(got {column.type}, {column.role})"
        yield f"parse: {column.parse} needs the type float or int and a role that is no identifier {got}."


def _free_text_faults(column: "Column") -> Iterator[str]:
    limits = {"max_length": math.inf, "components": MAX_COMPONENTS}
    for name, limit in limits.items():
        value = getattr(column, name)
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if column.is_free_text and not (is_whole and 1 <= value <= limit):
            upper = "" if limit == math.inf else f" and at most {limit}"
            yield f"{name} must be a whole number, at least 1{upper} (got {value!r})."
        elif value and not column.is_free_text:
            yield f"{name} needs the type text and the role feature (got {column.type}, {column.role})."


def _unseen_faults(column: "Column") -> Iterator[str]:
    if column.unseen not in UNSEEN:
        yield f"unseen must be one of {', '.join(UNSEEN)} (got {column.unseen!r})."
    elif column.unseen == "other" and column.type == "ordinal":
        yield "unseen: other needs the type category, since an unknown value has no place in the order (got ordinal)."
    elif column.unseen != "refuse" and not column.has_levels:
        yield f"unseen: {column.unseen} needs the type category (got {column.type})."
    elif column.unseen == "missing" and not column.nullable:
        yield "unseen: missing needs nullable: true."


def _is_finite_number(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # a Python int above the largest float
        return False
