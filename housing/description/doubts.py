"""Doubts about single columns: what is read in one way and may be meant in another."""

import re
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

import numpy as np

from housing.description.cells import MISSING_MARKS, date_seconds, parse_number
from housing.description.profile import ColumnProfile
from housing.schema.column import Vector
from housing.schema.dates import EPOCH, ISO_DATE, format_date
from housing.schema.written_numbers import read_written_number

MARKS = (-9999999, -999999, -99999, -9999, -999, -99, 9999, 99999, 999999, 9999999)  # numbers that often mean a missing value
DATE_MARKS = ("1899-12-30", "1900-01-01", "1970-01-01", "2099-12-31", "2999-12-31", "9999-12-31")  # dates that often mean that
PERIOD = re.compile(r"(19|20)\d\d[- ]?(Q[1-4]|W\d\d)|(Q[1-4]|W\d\d)[- ]?(19|20)\d\d", re.IGNORECASE | re.ASCII)
MARK_DISTANCE = 5  # times the range of the other numbers
TIME_NAME = re.compile(
    r"(.*[ _.-])?(date|datum|day|time|timestamp|datetime|epoch|created|updated)([ _.-]?(at|on))?", re.IGNORECASE
)
EPOCHS = ((1, "seconds"), (1000, "milliseconds"))
FIRST_SECOND, LAST_SECOND = 631_152_000, 2_208_988_800  # 1990 and 2040
FIRST_SERIAL, LAST_SERIAL = 32_874, 51_136  # the same days as Excel counts them
GROUPED_BY_DOTS = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+", re.ASCII)
MIN_GROUPED = 3  # distinct cells
MIN_MIXED_SHARE = 0.5
MIN_UNIT_LEVELS = 10
CLOCK_WORDS = ("am", "pm")
N_EXAMPLES = 4


def number_doubts(column: ColumnProfile) -> Iterator[str]:
    """Yield what numbers of a column may mean besides their value."""
    cells = [cell for cell in column.sample if cell and cell not in MISSING_MARKS]
    parsed = (parse_number(cell, column.options) for cell in cells)
    numbers = np.array([number for number in parsed if number is not None])
    if numbers.size:
        yield from _missing_marks(column, numbers)
        yield from _times(column)
    if column.options.delimiter != "," and not column.options.rewrites_numbers:
        fractions = {cell for cell in cells if "." in cell}
        if len(fractions) >= MIN_GROUPED and all(map(GROUPED_BY_DOTS.fullmatch, fractions)):
            yield (
                f"{column.name!r} has numbers such as {_listed(fractions)}. If the points separate thousands, add to the command:"
                " read.decimal=',' read.thousands=."
            )


def _missing_marks(column: ColumnProfile, numbers: Vector) -> Iterator[str]:
    for mark in MARKS:
        others = numbers[numbers != mark]
        count = len(numbers) - len(others)
        is_end = mark in (column.numbers.lowest, column.numbers.highest)
        if count > 1 and len(others) and is_end and np.abs(others - mark).min() > MARK_DISTANCE * max(np.ptp(others), 1):
            yield (
                f"{column.name!r} is {mark} in {count:,} sampled rows, far from its other values. If it means a missing value,"
                f" add to read: column_na_values: {{{column.name!r}: ['{mark}']}}, and to the column: nullable: true."
            )


def _times(column: ColumnProfile) -> Iterator[str]:
    lowest, highest = column.numbers.lowest, column.numbers.highest
    kept = "It is kept as a number: write it as a date for its month, weekday and hour to be used."
    for factor, name in EPOCHS:
        if lowest >= FIRST_SECOND * factor and highest <= LAST_SECOND * factor:
            days = " to ".join(format_date(end // factor, "%Y-%m-%d") for end in (lowest, highest))
            yield f"{column.name!r} looks like {name} since {EPOCH.year} ({days}). {kept}"
    if TIME_NAME.fullmatch(column.name.strip()) and lowest >= FIRST_SERIAL and highest <= LAST_SERIAL:
        days = " to ".join(format_date((end - 25_569) * 86_400, "%Y-%m-%d") for end in (lowest, highest))
        yield f"{column.name!r} looks like days as Excel counts them ({days}). {kept}"


def level_doubts(column: ColumnProfile, levels: Mapping[str, int]) -> Iterator[str]:
    """Yield what levels of a category may mean: numbers among other cells, numbers with several units, spellings of one level."""
    if column.n_numbers >= MIN_MIXED_SHARE * column.n_present and not column.n_leading_zeros:
        others = {cell: count for cell, count in column.misfits.items() if cell not in MISSING_MARKS}
        yield f"{column.name!r} mixes numbers with other cells, such as {_listed(others)}. It is read as a category."
    elif len(levels) >= MIN_UNIT_LEVELS and column.n_numbers + column.n_written == column.n_present:
        units = Counter(
            {suffix: n for (_, suffix), n in written_units(levels, column.parse).items() if suffix.lower() not in CLOCK_WORDS}
        )
        if units.total() == column.n_present and len(units) > 1:
            yield f"{column.name!r} has numbers with several units: {_listed(units)}. It is read as a category."
    spellings = defaultdict[str, list[str]](list)
    for level in levels:
        spellings[" ".join(unicodedata.normalize("NFKC", level).casefold().split())].append(level)
    twins = [same for same in spellings.values() if len(same) > 1]
    if twins:
        shown = "; ".join(" and ".join(map(repr, same)) for same in twins[:N_EXAMPLES])
        yield f"{column.name!r} has levels that differ only in case or spaces: {shown}. Each is a level of its own."
    if sum(PERIOD.fullmatch(level.strip()) is not None for level in levels) > len(levels) / 2:
        yield (
            f"{column.name!r} has quarters or weeks as text ({_listed(levels)}). It is read as a category, to which later ones"
            " are unknown: write their first day as a date for their order to be used."
        )


def date_doubts(column: ColumnProfile, cells: Mapping[str, int], form: str) -> Iterator[str]:
    """Yield what dates of a column may mean besides their value."""
    days = {cell: seconds for cell in cells if (seconds := date_seconds(cell, form)) is not None}
    ends = min(days.values()), max(days.values())
    if "%y" in form and ends[1] > time.time():
        yield (
            f"{column.name!r} has years of two digits, which are read as 1969 to 2068: the latest date is"
            f" {format_date(ends[1], ISO_DATE)}. If it means the century before, write the years with four digits."
        )
    marks = {cell: cells[cell] for cell, seconds in days.items() if format_date(seconds, ISO_DATE) in DATE_MARKS}
    for cell, count in marks.items():
        if count > 1 and days[cell] in ends and len(days) > len(marks):
            yield (
                f"{column.name!r} is {cell} in {count:,} rows. If it means a missing value, add to read: column_na_values:"
                f" {{{column.name!r}: ['{cell}']}}, and to the column: nullable: true."
            )


def written_units(cells: Mapping[str, int], parse: str) -> Counter[tuple[str, str]]:
    """Return what stands before and behind the numbers of cells, with the number of cells that have it."""
    counts = Counter[tuple[str, str]]()
    for cell, count in cells.items():
        written = read_written_number(cell, parse)
        if written is not None:
            counts[written.prefix, written.suffix] += count
    return counts


def _listed(cells: "set[str] | Mapping[str, int]") -> str:
    return ", ".join(repr(cell[:40]) for cell in sorted(cells)[:N_EXAMPLES])
