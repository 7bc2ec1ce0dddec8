"""Decisions: the type and role of each column of an unknown file, each with its evidence."""

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from housing.core.errors import ConfigError
from housing.data.read_options import FALSE_CELLS, TRUE_CELLS, ReadOptions
from housing.description.cells import MISSING_MARKS, NO_NUMBERS, date_formats, date_seconds, split_words, true_and_false
from housing.description.doubts import date_doubts, level_doubts, number_doubts, written_units
from housing.description.profile import ColumnProfile, FileProfile
from housing.schema.column import MAX_FEATURE, MAX_INTEGER
from housing.schema.dates import ISO_DATE
from housing.schema.written_numbers import parse_written_number

MIN_NUMBER_SHARE = 0.9  # of the present cells of a column of numbers; the others are taken as missing
MIN_TARGET_SHARE = 0.5
MAX_ODD_CELLS = 50  # distinct cells of a column of numbers that are taken as missing
MAX_LISTED = 20  # categories that are listed; more are learned
MAX_LEARNED = 100_000  # levels of a category
MAX_LEVEL_SHARE = 0.5  # levels of a category, of the rows that have one
MIN_ROWS_OF_IDENTIFIER = 20
MIN_WORDS = 2.5  # of a text on average; shorter cells are codes or names
N_EXAMPLES = 4
MAX_EXAMPLE = 40  # characters of an example
MAX_UNIT = 12  # characters before and behind a number
CURRENCIES = (
    "usd",
    "eur",
    "gbp",
    "chf",
    "inr",
    "aud",
    "cad",
    "jpy",
    "cny",
    "sek",
    "nok",
    "dkk",
    "pln",
    "rs",
    "rs.",
    "kr",
    "r$",
    "us$",
    "a$",
)

COORDINATES = (  # role, names, and limit in degrees
    ("latitude", re.compile(r"(.*[ _])?lat(itude)?", re.IGNORECASE), 90),
    ("longitude", re.compile(r"(.*[ _])?(lon|lng|long|longitude)", re.IGNORECASE), 180),
)
KEY_NAME = re.compile(r"(?i:(.*[ _.-])?(p?id|ids|uuid|guid|key|sku|vin))|.*[a-z]I[dD]")
LINE_NUMBER_NAME = re.compile(r"(.*[ _.-])?(index|rownum|rowid)|unnamed.*|", re.IGNORECASE)


@dataclass(frozen=True)
class Decision:
    """The declaration of a column, with its evidence.

    Attributes
    ----------
    attributes
        The declaration, such as {"type": "float"}.
    evidence
        Short facts that the declaration follows from.
    warnings
        Sentences about what misleads. A column with a warning should be looked at.
    """

    name: str
    attributes: Mapping[str, Any]
    evidence: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def is_feature(self) -> bool:
        """Whether models receive the column."""
        return self.attributes.get("role", "feature") in ("feature", "latitude", "longitude")

    @property
    def is_number(self) -> bool:
        """Whether the column is declared as a number."""
        return self.attributes.get("type") in ("float", "int")

    @property
    def is_text(self) -> bool:
        """Whether the column is declared as a text that models receive."""
        return self.attributes.get("type") == "text" and self.is_feature

    @property
    def is_date(self) -> bool:
        """Whether the column is declared as a date."""
        return self.attributes.get("type") == "date"

    def ignored(self, warning: str) -> Self:
        """Return the decision to leave the column out, with a warning."""
        return replace(self, attributes={"role": "ignore"}, warnings=(*self.warnings, warning))


@dataclass
class _Reading:
    """Cells that the columns together need as missing marks and words for true and false."""

    na_values: dict[str, int] = field(default_factory=dict)
    column_na_values: dict[str, dict[str, int]] = field(default_factory=dict)
    true_values: list[str] = field(default_factory=list)
    false_values: list[str] = field(default_factory=list)

    def add_missing(self, cells: Mapping[str, int]) -> None:
        """Count missing marks of a column."""
        for cell, count in cells.items():
            self.na_values[cell] = self.na_values.get(cell, 0) + count

    def add_words(self, true: Sequence[str], false: Sequence[str]) -> None:
        """Add words for true and false that are not understood without a declaration."""
        self.true_values += [word for word in true if word not in (*TRUE_CELLS, *self.true_values)]
        self.false_values += [word for word in false if word not in (*FALSE_CELLS, *self.false_values)]


@dataclass(frozen=True)
class Decisions:
    """The decisions on all columns, and the read options with what the columns need."""

    columns: list[Decision]
    options: ReadOptions
    na_values: Mapping[str, int]  # with the number of cells

    def column(self, name: str) -> Decision:
        """Return the decision on a column."""
        return next(column for column in self.columns if column.name == name)

    def replaced(self, decisions: Sequence[Decision]) -> Self:
        """Return the decisions, some of them replaced by others on the same columns."""
        by_name = {decision.name: decision for decision in decisions}
        return replace(self, columns=[by_name.get(column.name, column) for column in self.columns])


def find_target(profile: FileProfile, target: str) -> str:
    """Return the name of the target as it is in the file; case and outer spaces do not matter.

    Raises
    ------
    ConfigError
        If there is no such column, or if it has no numbers.
    """
    names = [column.name for column in profile.columns]
    matches = [name for name in names if name == target] or [
        name for name in names if name.strip().lower() == target.strip().lower()
    ]
    if len(matches) != 1:
        hint = " If the first row has the names, add read.header=first." if profile.columns[0].options.header == "none" else ""
        raise ConfigError(f"target={target!r} is no column of the file. Columns: {', '.join(map(repr, names))}.{hint}")
    column = profile.column(matches[0])
    if not column.n_present:
        raise ConfigError(f"The target {matches[0]!r} is empty in all {column.n_rows:,} rows.")
    n_others = column.n_present - max(column.n_numbers, column.n_numbers + column.n_written if _unit(column) is not None else 0)
    if n_others > (1 - MIN_TARGET_SHARE) * column.n_present:
        raise ConfigError(
            f"The target {matches[0]!r} must be a number, but {n_others:,} of its {column.n_present:,} cells are none, such as"
            f" {_examples(column)}."
        )
    return matches[0]


def decide(profile: FileProfile, options: ReadOptions, target: str) -> Decisions:
    """Decide on each column. `target` is the name of the column to predict."""
    reading = _Reading()
    columns = [_decide(column, column.name == target, reading) for column in profile.columns]
    columns = _with_coordinates(columns, profile)
    options = replace(
        options,
        na_values=tuple(reading.na_values),
        column_na_values=tuple((name, tuple(cells)) for name, cells in reading.column_na_values.items()),
        true_values=tuple(reading.true_values),
        false_values=tuple(reading.false_values),
    )
    return Decisions(columns, options, reading.na_values)


def _decide(column: ColumnProfile, is_target: bool, reading: _Reading) -> Decision:
    marks = {cell: count for cell, count in column.missing.items() if cell}
    reading.add_missing(marks)
    decision = _decide_target(column, reading) if is_target else _decide_feature(column, reading)
    n_missing = column.missing.total()
    if not n_missing:
        return decision
    missing = _missing_evidence(column, n_missing, marks)
    nullable = {"nullable": True} if decision.is_feature else {}
    return replace(decision, attributes={**decision.attributes, **nullable}, evidence=(*decision.evidence, missing))


def _missing_evidence(column: ColumnProfile, n_missing: int, marks: Mapping[str, int]) -> str:
    shown = f" ({', '.join(map(repr, marks))})" if marks else ""
    return f"{n_missing:,} of {column.n_rows:,} missing, {100 * n_missing / column.n_rows:.3g} %{shown}"


def _decide_target(column: ColumnProfile, reading: _Reading) -> Decision:
    unit = _unit(column) if column.n_numbers < MIN_TARGET_SHARE * column.n_present else None
    decided = _plain_number(column, reading) if unit is None else _written_number(column, unit, reading)
    attributes = {key: value for key, value in decided.attributes.items() if key != "nullable"}
    return replace(decided, attributes={**attributes, "role": "target"})


def _decide_feature(column: ColumnProfile, reading: _Reading) -> Decision:
    if not column.n_present:
        return Decision(column.name, {"role": "ignore"}, ("empty",), (f"{column.name!r} is empty.",))
    levels = _levels(column)
    if len(levels) == 1 and column.n_present == column.n_rows > 1:
        constant = f"constant: {next(iter(levels))!r}"
        return Decision(column.name, {"role": "ignore"}, (constant,), (f"{column.name!r} is constant.",))
    words = true_and_false(levels)
    if words is not None:
        reading.add_words(*words)
        return Decision(column.name, {"type": "bool"}, (_counts(levels),))
    if not column.n_leading_zeros and column.n_numbers and column.n_numbers >= MIN_NUMBER_SHARE * _n_meant(column):
        return _decide_number(column, levels, reading)
    return _decide_text(column, levels, reading)


def _levels(column: ColumnProfile) -> Mapping[str, int]:
    """Return the count of each distinct cell that is not missing, or {} if they are too many to count."""
    return {cell: count for cell, count in column.levels.items() if cell not in MISSING_MARKS}


def _cells(column: ColumnProfile) -> Mapping[str, int]:
    """Return the count of each distinct cell that is not missing: in all rows, or in the sample if they are too many."""
    return _levels(column) or Counter(cell for cell in column.sample if cell and cell not in MISSING_MARKS)


def _n_meant(column: ColumnProfile) -> int:
    """Return the number of cells that are neither missing nor a word for that among numbers."""
    return column.n_present - sum(count for cell, count in column.misfits.items() if _means_none(cell))


def _means_none(cell: str) -> bool:
    return cell.strip().lower() in NO_NUMBERS


def _decide_number(column: ColumnProfile, levels: Mapping[str, int], reading: _Reading) -> Decision:
    kind, size = _number_type(column), max(abs(column.numbers.lowest), abs(column.numbers.highest))
    if kind == "int" and len(str(int(size))) == len("20240131") and "%Y%m%d" in (formats := date_formats(_cells(column))):
        return _decide_date(column, _cells(column), formats, reading)
    if _is_identifier(column) and kind == "int":
        return _identifier(column, "counts up" if column.numbers.is_increasing else "each value once")
    if kind == "int" and size > MAX_INTEGER:
        return _identifier(column, "longer than an exact number")
    if size > MAX_FEATURE:
        return _left_out(column, f"up to {size:g}", f"has numbers of more than {MAX_FEATURE:g}, with which models cannot compute")
    decided = _plain_number(column, reading)
    odd = _odd_cells(column)
    if len(odd) > MAX_ODD_CELLS:
        warning = f"{column.name!r} mixes numbers with {len(odd)} or more other cells: {_counts(odd)}. It is left out."
        return Decision(column.name, {"role": "ignore"}, ("mixed",), (warning,))
    two_levels = (_counts(levels),) if 0 < len(levels) <= 2 else ()
    doubts = [*number_doubts(column), *_identifier_doubt(column, kind)]
    return replace(decided, evidence=(*decided.evidence, *two_levels), warnings=(*decided.warnings, *doubts))


def _identifier_doubt(column: ColumnProfile, kind: str) -> Iterator[str]:
    """Yield a warning if integers have the name of an identifier: their size then means nothing."""
    if kind == "int" and KEY_NAME.fullmatch(column.name.strip()):
        yield (
            f"{column.name!r} has the name of an identifier, but is read as a number. If it is one, declare {{type: int, role:"
            " group}, or {type: category, categories: auto} if its values will be known."
        )


def _plain_number(column: ColumnProfile, reading: _Reading) -> Decision:
    decided = Decision(column.name, {"type": _number_type(column)}, (_range(column),))
    return _without_odd(decided, column, _odd_cells(column), reading)


def _without_odd(decided: Decision, column: ColumnProfile, odd: Mapping[str, int], reading: _Reading) -> Decision:
    """Return the decision that takes odd cells as missing, with a warning."""
    if not odd:
        return decided
    if len(odd) > MAX_ODD_CELLS:
        problem = (
            f"{column.name!r}: {sum(odd.values()):,} or more cells are no numbers, such as {_counts(odd)}. Training refuses them."
        )
        return replace(decided, warnings=(*decided.warnings, problem))
    reading.column_na_values[column.name] = dict(odd)
    count = f"{sum(odd.values()):,} of {column.n_rows:,} values"
    warning = f"{column.name!r}: {count} do not parse and are taken as missing: {_counts(odd)}."
    return replace(decided, attributes={**decided.attributes, "nullable": True}, warnings=(warning,))


def _decide_text(column: ColumnProfile, levels: Mapping[str, int], reading: _Reading) -> Decision:
    cells = _cells(column)
    if formats := date_formats(cells):
        return _decide_date(column, cells, formats, reading)
    unit = _unit(column)
    if unit is not None:
        return _decide_written_number(column, unit, reading)
    return _decide_words(column, levels, cells)


def _decide_words(column: ColumnProfile, levels: Mapping[str, int], cells: Mapping[str, int]) -> Decision:
    """Decide on texts that are neither dates nor numbers of one unit: a category, free text, or neither."""
    n_levels = len(levels) or len(column.distinct)
    repeats = n_levels <= min(MAX_LEARNED, max(MAX_LISTED, MAX_LEVEL_SHARE * column.n_present))
    if not repeats and (units := _several_units(column)):
        return _left_out(column, "numbers with several units", f"has numbers with several units: {', '.join(map(repr, units))}")
    is_text = _is_free_text(column, cells)
    if _is_identifier(column) and not is_text:
        return _identifier(column, "each value once")
    if repeats:
        is_listed = n_levels <= MAX_LISTED and not any("${" in level for level in levels)  # a config may not contain that
        categories = sorted(levels) if is_listed else "auto"
        evidence = f"{n_levels:,} levels, {_counts(levels)}" if levels else f"{n_levels:,} levels, such as {_examples(column)}"
        return Decision(
            column.name, {"type": "category", "categories": categories}, (evidence,), tuple(level_doubts(column, levels))
        )
    if is_text:
        evidence = f"{len(column.distinct):,} distinct, {_mean_words(cells):.2g} words on average"
        return Decision(column.name, {"type": "text"}, (evidence,))
    return _left_out(column, f"text, {len(column.distinct):,} distinct", "has too many distinct texts for a category")


def _is_free_text(column: ColumnProfile, cells: Mapping[str, int]) -> bool:
    """Return whether cells have several words, and differ by them: "flat 1" and "flat 2" are names of things."""
    if len(cells) < MIN_ROWS_OF_IDENTIFIER or _is_named_identifier(column):
        return False
    return _mean_words(cells) >= MIN_WORDS and len(set(map(split_words, cells))) >= MAX_LEVEL_SHARE * len(cells)


def _mean_words(cells: Mapping[str, int]) -> float:
    return statistics.fmean(len(split_words(cell)) for cell in cells)


def _decide_date(column: ColumnProfile, cells: Mapping[str, int], formats: Mapping[str, int], reading: _Reading) -> Decision:
    n_cells = sum(cells.values())
    form = max(formats, key=formats.__getitem__)
    odd = {cell: count for cell, count in cells.items() if date_seconds(cell, form) is None}
    if formats[form] < MIN_NUMBER_SHARE * n_cells or len(odd) > MAX_ODD_CELLS:
        return _left_out(column, "dates and others", f"has dates in several formats, or among other texts ({', '.join(formats)})")
    declared = {"type": "date"} if form == ISO_DATE else {"type": "date", "format": form}
    decided = _without_odd(Decision(column.name, declared, (f"dates written as {form}",)), column, odd, reading)
    decided = replace(decided, warnings=(*decided.warnings, *date_doubts(column, cells, form)))
    equal = [other for other, count in formats.items() if count == formats[form]]
    if len(equal) == 1:
        return decided
    doubt = f"{column.name!r} has dates that {' and '.join(equal)} fit (such as {_examples(column)}): check which one is right."
    return replace(decided, warnings=(*decided.warnings, doubt))


def _decide_written_number(column: ColumnProfile, unit: str, reading: _Reading) -> Decision:
    parsed, odd = _parse_written(column)
    is_understood = sum(odd.values()) <= (1 - MIN_NUMBER_SHARE) * column.n_present and len(odd) <= MAX_ODD_CELLS
    if not parsed or not is_understood:
        return _left_out(column, f"numbers with {unit!r}", "has numbers stored as text")
    return _written_number(column, unit, reading)


def _written_number(column: ColumnProfile, unit: str, reading: _Reading) -> Decision:
    parsed, odd = _parse_written(column)
    declared = {"type": "int" if all(map(float.is_integer, parsed)) else "float", "parse": column.parse}
    written = f"with {unit!r}, " if unit else "written as text, "
    evidence = f"numbers {written}{min(parsed):.10g} to {max(parsed):.10g}"
    return _without_odd(Decision(column.name, declared, (evidence,)), column, odd, reading)


def _parse_written(column: ColumnProfile) -> tuple[list[float], dict[str, int]]:
    """Return the numbers of the cells, and the counts of the cells that have none."""
    cells = _cells(column)
    numbers = {cell: parse_written_number(cell, column.parse) for cell in cells}
    parsed = [number for number in numbers.values() if number is not None]
    return parsed, {cell: cells[cell] for cell, number in numbers.items() if number is None}


def _unit(column: ColumnProfile) -> str | None:
    """Return the currency or unit of written numbers, "" if they have none, or None if they have several or are names."""
    if not column.n_written or column.n_numbers + column.n_written < MIN_NUMBER_SHARE * _n_meant(column):
        return None
    units = written_units(_cells(column), column.parse)
    decorated = Counter({unit: count for unit, count in units.items() if any(unit)})
    if not decorated:
        return ""
    (prefix, suffix), count = decorated.most_common(1)[0]
    is_name = len(prefix) > MAX_UNIT or len(suffix) > MAX_UNIT or _is_name_before_number((prefix, suffix))
    return None if is_name or count < MIN_NUMBER_SHARE * decorated.total() else f"{prefix}…{suffix}"


def _several_units(column: ColumnProfile) -> list[str]:
    """Return the currencies and units of written numbers if there are several, else []."""
    units = written_units(_cells(column), column.parse)
    if units.total() < MIN_NUMBER_SHARE * column.n_present or any(map(_is_name_before_number, units)):
        return []
    return sorted({f"{prefix}…{suffix}" for prefix, suffix in units if prefix or suffix})


def _is_name_before_number(unit: tuple[str, str]) -> bool:
    """Return whether letters stand before a number, as in Q1: that is no number unless they are a currency."""
    prefix, _ = unit
    return _has_letter(prefix) and prefix.lower() not in CURRENCIES


def _has_letter(text: str) -> bool:
    """Return whether a text has a letter: what stands before a number is then often a name, such as Q in Q1."""
    return any(character.isalpha() for character in text)


def _left_out(column: ColumnProfile, evidence: str, problem: str) -> Decision:
    warning = f"{column.name!r} {problem} (such as {_examples(column)}), so it is left out."
    return Decision(column.name, {"role": "ignore"}, (evidence,), (warning,))


def _is_identifier(column: ColumnProfile) -> bool:
    """Return whether each value stands once, as in a number of the row or the name of a thing."""
    if len(column.distinct) < column.n_present:
        return False
    if _is_named_identifier(column):
        return True
    n_numbers = column.numbers.highest - column.numbers.lowest + 1
    counts_rows = n_numbers == column.n_present or (column.numbers.is_increasing and n_numbers <= 2 * column.n_present)
    is_text = column.n_numbers < column.n_present or column.n_leading_zeros > 0
    return column.n_present >= MIN_ROWS_OF_IDENTIFIER and (counts_rows or is_text)


def _is_named_identifier(column: ColumnProfile) -> bool:
    name = column.name.strip()
    return bool(KEY_NAME.fullmatch(name) or LINE_NUMBER_NAME.fullmatch(name))


def _identifier(column: ColumnProfile, evidence: str) -> Decision:
    warning = f"{column.name!r} identifies a row ({evidence}), so it is left out."
    return Decision(column.name, {"role": "ignore"}, (f"identifier: {evidence}",), (warning,))


def _odd_cells(column: ColumnProfile) -> dict[str, int]:
    return {cell: count for cell, count in column.misfits.items() if cell not in MISSING_MARKS}


def _number_type(column: ColumnProfile) -> str:
    return "int" if column.n_integers == column.n_numbers else "float"


def _range(column: ColumnProfile) -> str:
    return f"{column.numbers.lowest:.10g} to {column.numbers.highest:.10g}"


def _counts(levels: Mapping[str, int]) -> str:
    common = Counter(levels).most_common(N_EXAMPLES)
    return ", ".join(f"{level!r} {count:,}" for level, count in common) + (", …" if len(levels) > len(common) else "")


def _examples(column: ColumnProfile) -> str:
    present = [cell for cell in column.sample if cell and cell not in MISSING_MARKS]
    return ", ".join(repr(cell[:MAX_EXAMPLE]) for cell in list(dict.fromkeys(present))[:N_EXAMPLES])


def _with_coordinates(columns: list[Decision], profile: FileProfile) -> list[Decision]:
    """Assign the roles latitude and longitude if exactly one column looks like each and has no missing values."""
    chosen: dict[str, str] = {}
    for role, pattern, limit in COORDINATES:
        names = [column.name for column in columns if column.attributes == {"type": "float"} and pattern.fullmatch(column.name)]
        if len(names) == 1 and _is_within(profile.column(names[0]), limit):
            chosen[names[0]] = role
    if len(chosen) < len(COORDINATES):
        return columns
    return [
        replace(column, attributes={**column.attributes, "role": chosen[column.name]}) if column.name in chosen else column
        for column in columns
    ]


def _is_within(column: ColumnProfile, limit: float) -> bool:
    return -limit <= column.numbers.lowest and column.numbers.highest <= limit
