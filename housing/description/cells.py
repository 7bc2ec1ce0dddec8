"""Cells of unknown files: missing marks, numbers, words for true and false, and formats of dates."""

import itertools
import re
from collections.abc import Iterable, Mapping

from housing.data.read_options import ReadOptions
from housing.schema.dates import ISO_DATE, SHORTER, parse_date
from housing.schema.written_numbers import PLAIN_NUMBER

MISSING_MARKS = frozenset(
    ["NA", "N/A", "n/a", "na", "#N/A", "#NA", "NaN", "nan", "NAN", "NULL", "Null", "null", "?", "-", "--", ".", "<NA>", "missing"]
)
LEADING_ZERO = re.compile(r"\s*[+-]?0\d+\s*", re.ASCII)
DECORATED = re.compile(r"([^\d+-]{0,8})([+-]?\d[\d.,' \u00a0\u202f]*?)([^\d]{0,12})")  # "$1,200", "12 %", "45,000 kms"
TRUE_WORDS = ("true", "t", "yes", "y", "ja", "oui", "si", "sí", "on", "wahr", "vrai")
FALSE_WORDS = ("false", "f", "no", "n", "nein", "nee", "nej", "non", "off", "falsch", "faux")
# In lower case. In a column of numbers these mean that there is none; elsewhere they can be levels.
NO_NUMBERS = frozenset(
    ["none", "n.a.", "n.a", "k.a.", "unknown", "unbekannt", "not available", "nil", "tbd", "...", "…", "inf", "-inf", "infinity"]
    + ["#div/0!", "#value!", "#ref!", "#name?", "#num!", "#null!"]
)
DAYS = (
    *("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d.%m.%y", "%m/%d/%Y", "%m/%d/%y", "%d/%m/%Y", "%d/%m/%y", "%d-%m-%Y", "%m-%d-%Y"),
    *("%d-%m-%y", "%Y.%m.%d", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%Y%m%d"),
)
MONTHS = ("%Y-%m", "%Y/%m", "%m/%Y", "%b %Y", "%B %Y", "%b-%Y")  # read as their first day
TIMES = ("", " %H:%M:%S", " %H:%M", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
ISO_TIMES = ("T%H:%M:%S", "T%H:%M", "T%H:%M:%S.%f", " %H:%M:%S%z", "T%H:%M:%S%z", "T%H:%M:%S.%f%z", " %H:%M:%S.%f%z")
DATE_FORMATS = (
    *MONTHS,
    *(f"{day}{time}" for time in TIMES for day in DAYS),
    *(f"{ISO_DATE}{time}" for time in ISO_TIMES),
    *(f"{weekday}, {day}" for day in DAYS[14:18] for weekday in ("%a", "%A")),
)
MONTH = re.compile(r"jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec", re.IGNORECASE)
WORD = re.compile(r"\b[^\W\d_]{2,}\b")  # two letters or more
MONTH_OF_YEAR = re.compile(r"(19|20)\d\d[-/](0[1-9]|1[0-2])|(0[1-9]|1[0-2])/(19|20)\d\d|[A-Za-z]{3,9}[- ](19|20)\d\d", re.ASCII)
N_TRIED = 30  # distinct cells that decide which formats are tried


def parse_number(cell: str, options: ReadOptions) -> float | None:
    """Return the number of a cell, or None if it is no number as `options` write it."""
    text = options.number(cell)
    return float(text) if text is not None and PLAIN_NUMBER.fullmatch(text) else None


def number_core(cell: str) -> str:
    """Return the number in a cell without the currency, the percent sign or the unit around it; the cell if it has none."""
    match = DECORATED.fullmatch(cell.strip())
    return match[2].strip() if match else cell


def true_and_false(levels: Iterable[str]) -> tuple[list[str], list[str]] | None:
    """Return the levels that mean true and those that mean false, or None if the levels are no words for both."""
    levels = list(levels)
    true = [level for level in levels if level.strip().lower() in TRUE_WORDS]
    false = [level for level in levels if level.strip().lower() in FALSE_WORDS]
    return (true, false) if true and false and len(true) + len(false) == len(levels) else None


def split_words(cell: str) -> tuple[str, ...]:
    """Return the words of a cell in lower case, without numbers, codes and single letters."""
    return tuple(WORD.findall(cell.lower()))


def date_formats(cells: Mapping[str, int]) -> dict[str, int]:
    """Return the formats of dates, the most usual first, with the number of cells that have each.

    Parameters
    ----------
    cells
        The count of each distinct cell.
    """
    tried = list(itertools.islice(cells, N_TRIED))
    if sum(map(_looks_like_date, tried)) <= len(tried) / 2:
        return {}
    formats = [form for form in DATE_FORMATS if any(date_seconds(cell, form) is not None for cell in tried)]
    counts = {form: sum(count for cell, count in cells.items() if date_seconds(cell, form) is not None) for form in formats}
    return {form: count for form, count in counts.items() if counts.get(SHORTER.get(form, "")) != count}


def _looks_like_date(cell: str) -> bool:
    if MONTH_OF_YEAR.fullmatch(cell.strip()):
        return True
    n_numbers = len(re.findall(r"\d+", cell))
    return n_numbers >= 3 or (n_numbers == 2 and MONTH.search(cell) is not None) or (len(cell) == 8 and cell.isdecimal())


def date_seconds(cell: str, form: str) -> float | None:
    """Return the seconds since 1970 of a date, or None if the cell does not have the format."""
    try:
        return parse_date(cell, form)
    except ValueError:
        return None
