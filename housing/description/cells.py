"""Cells of unknown files: missing marks, numbers, words for true and false, and formats of dates."""

import re
from collections.abc import Iterable

from housing.data.read_options import ReadOptions
from housing.schema.dates import parse_date
from housing.schema.written_numbers import PLAIN_NUMBER

MISSING_MARKS = frozenset(
    ["NA", "N/A", "n/a", "na", "#N/A", "NaN", "nan", "NAN", "NULL", "Null", "null", "?", "-", "--", ".", "<NA>", "missing"]
)
LEADING_ZERO = re.compile(r"\s*[+-]?0\d+\s*", re.ASCII)
DECORATED = re.compile(r"([^\d+-]{0,8})([+-]?\d[\d.,' \u00a0\u202f]*?)([^\d]{0,12})")  # "$1,200", "12 %", "45,000 kms"
TRUE_WORDS = ("true", "t", "yes", "y", "ja", "oui", "si", "sí", "on")
FALSE_WORDS = ("false", "f", "no", "n", "nein", "non", "off")
DATE_FORMATS = (
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d %H:%M",
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%d.%m.%y",
    "%d.%m.%Y %H:%M",
    "%m/%d/%Y",
    "%m/%d/%y",
    "%d/%m/%Y",
    "%d/%m/%y",
    "%m/%d/%Y %H:%M",
    "%d/%m/%Y %H:%M",
    "%d-%m-%Y",
    "%d %b %Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%Y%m%d",
)


def parse_number(cell: str, options: ReadOptions) -> float | None:
    """Return the number of a cell, or None if it is no number as `options` write it."""
    text = options.number(cell)
    return float(text) if text is not None and PLAIN_NUMBER.fullmatch(text) else None


def number_core(cell: str) -> str:
    """Return the number in a cell without the currency, the percent sign or the unit around it; the cell if it has none."""
    match = DECORATED.fullmatch(cell.strip())
    return match[2].strip() if match else cell


def decoration(cell: str) -> tuple[str, str] | None:
    """Return what stands before and behind the number of a cell, or None if the cell is no decorated number."""
    match = DECORATED.fullmatch(cell.strip())
    return (match[1].strip(), match[3].strip()) if match else None


def true_and_false(levels: Iterable[str]) -> tuple[list[str], list[str]] | None:
    """Return the levels that mean true and those that mean false, or None if the levels are no words for both."""
    levels = list(levels)
    true = [level for level in levels if level.strip().lower() in TRUE_WORDS]
    false = [level for level in levels if level.strip().lower() in FALSE_WORDS]
    return (true, false) if true and false and len(true) + len(false) == len(levels) else None


def date_formats(cells: Iterable[str]) -> list[str]:
    """Return the formats that all cells have, the most usual first; [] if there are no cells."""
    distinct = list(dict.fromkeys(cells))
    return [form for form in DATE_FORMATS if distinct and all(date_seconds(cell, form) is not None for cell in distinct)]


def date_seconds(cell: str, form: str) -> float | None:
    """Return the seconds since 1970 of a date, or None if the cell does not have the format."""
    try:
        return parse_date(cell, form)
    except ValueError:
        return None
