"""Read options: how a table's file writes its cells, as the key `read` of its config declares."""

import difflib
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, time
from decimal import Decimal
from typing import Any, Self

from housing.core.errors import ConfigError

TRUE_CELLS = ("True", "TRUE", "true", "1", "1.0")
FALSE_CELLS = ("False", "FALSE", "false", "0", "0.0")
HEADERS = ("first", "none")
DUPLICATES = ("refuse", "number")
LIST_KEYS = ("na_values", "true_values", "false_values", "skip_rows")


@dataclass(frozen=True)
class ReadOptions:  # pylint: disable=too-many-instance-attributes  # one for each key of `read`
    """How a file writes its cells.

    Attributes
    ----------
    delimiter
        The character between the cells of a row.
    decimal, thousands
        The characters before the fraction of a number and between its groups of digits; "" if digits are not grouped.
    encoding
        A codec of Python. UTF-8 may start with a byte order mark.
    na_values
        Cells that mean a missing value, besides the empty cell.
    column_na_values
        Such cells of single columns: pairs of a name and its cells.
    true_values, false_values
        Cells of a bool, besides `TRUE_CELLS` and `FALSE_CELLS`.
    header
        "first" if the first row has the names of the columns, "none" if the columns have the order of the declaration.
    skip_lines
        Lines before the header that are not read, such as titles and comments.
    skip_rows
        First cells of rows that are not read, such as totals, notes and units.
    strip
        Whether spaces around names and cells are removed.
    duplicates
        What happens to a name that stands twice in the header: "refuse" the file, or "number" the columns.
    sheet
        The sheet of an Excel file, or None for its first.
    names
        Without a header: the possible rows of names, of different lengths.
    """

    delimiter: str = ","
    decimal: str = "."
    thousands: str = ""
    encoding: str = "utf-8"
    na_values: tuple[str, ...] = ()
    column_na_values: tuple[tuple[str, tuple[str, ...]], ...] = ()
    true_values: tuple[str, ...] = ()
    false_values: tuple[str, ...] = ()
    header: str = "first"
    skip_lines: int = 0
    skip_rows: tuple[str, ...] = ()
    strip: bool = False
    duplicates: str = "refuse"
    sheet: str | None = None
    names: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        faults = [f"read: {expected} (got {value!r})." for is_valid, expected, value in self._checks() if not is_valid]
        if faults:
            raise ConfigError("\n".join(faults))

    def _checks(self) -> Iterator[tuple[bool, str, object]]:
        """Yield for each requirement whether it is met, what is expected and the value."""
        yield _is_character(self.delimiter) and self.delimiter != '"', "delimiter must be a single character", self.delimiter
        yield self.decimal in (".", ","), 'decimal must be "." or ","', self.decimal
        is_group = self.thousands == "" or (_is_character(self.thousands) and not self.thousands.isalnum())
        yield is_group and self.thousands not in (self.decimal, "-", "+"), "thousands must be a sign", self.thousands
        yield _is_codec(self.encoding), "encoding must be a codec of Python, such as utf-8, cp1252 or utf-16", self.encoding
        yield self.header in HEADERS, "header must be first or none", self.header
        yield self.duplicates in DUPLICATES, "duplicates must be refuse or number", self.duplicates
        is_count = isinstance(self.skip_lines, int) and self.skip_lines >= 0
        yield is_count, "skip_lines must be a number of lines", self.skip_lines
        yield isinstance(self.strip, bool), "strip must be true or false", self.strip
        for name in LIST_KEYS:
            of_columns = [value for _, values in self.column_na_values for value in values] if name == "na_values" else []
            for value in (*getattr(self, name), *of_columns):
                yield isinstance(value, str), f"{name} must be strings in quotes, as they are written in the table", value
        both = sorted({str(value) for value in self.true_values} & {str(value) for value in self.false_values})
        yield not both, "true_values and false_values must differ", ", ".join(both)

    @classmethod
    def from_dict(cls, declared: Mapping[str, Any] | None, names: Sequence[str], target: str) -> Self:
        """Read the options of a table with the columns `names`.

        A file without a header has all columns, or all but the target.

        Raises
        ------
        ConfigError
            If an option is unknown or invalid.
        """
        if not isinstance(declared or {}, Mapping):
            raise ConfigError(f"read must be a mapping, such as {{delimiter: ';'}} (got {declared!r}).")
        values = dict(declared or {})
        known = [option.name for option in fields(cls) if option.name != "names"]
        faults = list(map(_unknown_option, values.keys() - set(known), itertools.repeat(known)))
        values = {key: value for key, value in values.items() if key in known}
        try:
            for key in LIST_KEYS:
                values[key] = _as_tuple(key, values.get(key))
            values["column_na_values"] = _parse_column_na_values(values.get("column_na_values"), names)
            if values.get("header") == "none":
                values["names"] = (tuple(names), tuple(name for name in names if name != target))
            options = cls(**values)
        except ConfigError as error:
            faults.append(str(error))
        if faults:
            raise ConfigError("\n".join(faults))
        return options

    def missing_cells(self, header: Sequence[str]) -> list[frozenset[str]] | None:
        """Return for each column the cells that mean a missing value, or None if only the empty cell does."""
        if not self.na_values and not self.column_na_values:
            return None
        of_columns = dict(self.column_na_values)
        return [frozenset([*self.na_values, *of_columns.get(name, ())]) for name in header]

    @property
    def rewrites_numbers(self) -> bool:
        """Whether numbers are written in another way than Python's."""
        return self.decimal != "." or bool(self.thousands)

    def number(self, cell: str) -> str | None:
        """Return a number as Python writes it, or None if the cell's signs contradict the options."""
        if not self.rewrites_numbers:
            return cell
        text = cell.strip()
        if self.thousands and self.thousands in text:
            if not self._groups.fullmatch(text):
                return None
            text = text.replace(self.thousands, "")
        if self.decimal == ",":
            return None if "." in text else text.replace(",", ".")
        return text

    @property
    def _groups(self) -> re.Pattern[str]:
        """A number with groups: the last one has three digits, those before it two (in India) or three."""
        group, decimal = re.escape(self.thousands), re.escape(self.decimal)
        return re.compile(rf"[+-]?[1-9]\d{{0,2}}({group}\d{{2,3}})*{group}\d{{3}}({decimal}\d*)?", re.ASCII)

    def boolean(self, cell: str) -> bool | None:
        """Return the value of a bool's cell, or None if the cell is neither true nor false."""
        if cell in self.true_values or cell in self.false_values:
            return cell in self.true_values
        if cell in TRUE_CELLS or cell in FALSE_CELLS:
            return cell in TRUE_CELLS
        return None

    def format(self, value: object) -> str:
        """Return the cell of a value. `str` keeps every digit of a float."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        if isinstance(value, float | Decimal):
            return str(value).replace(".", self.decimal)
        if isinstance(value, datetime) and value.time() == time() and value.tzinfo is None:
            return str(value.date())
        return str(value)


def _as_tuple(key: str, values: object) -> tuple[Any, ...]:
    if values is None:
        return ()
    if not isinstance(values, list | tuple):
        raise ConfigError(f"read: {key} must be a list, such as ['n/a'] (got {values!r}).")
    return tuple(values)


def _parse_column_na_values(declared: object, names: Sequence[str]) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    if declared is None:
        return ()
    if not isinstance(declared, Mapping) or not set(declared) <= set(names):
        raise ConfigError(f"read: column_na_values must be lists by the name of a declared column (got {declared!r}).")
    return tuple((name, _as_tuple("column_na_values", cells)) for name, cells in declared.items())


def _unknown_option(key: object, known: Sequence[str]) -> str:
    close_matches = difflib.get_close_matches(str(key), known, n=1)
    hint = f"Did you mean '{close_matches[0]}'?" if close_matches else f"Options: {', '.join(known)}."
    return f"read: unknown option '{key}'. {hint}"


def _is_character(text: object) -> bool:
    return isinstance(text, str) and len(text) == 1 and text not in "\r\n\0"


def _is_codec(name: object) -> bool:
    try:
        return isinstance(name, str) and "".encode(name) is not None
    except LookupError:
        return False


PLAIN = ReadOptions()  # CSV as Python and pandas write it
