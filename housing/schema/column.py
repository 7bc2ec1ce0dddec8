"""A column of a table: its type, its allowed values and its encoding as float64."""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.schema.dates import ISO_DATE, format_date, parse_date
from housing.schema.declaration import AUTO, FEATURE_ROLES, IDENTIFIER_ROLES, find_faults
from housing.schema.nearest_levels import NearestLevels
from housing.schema.text_projection import MAX_LENGTH, N_COMPONENTS
from housing.schema.written_numbers import parse_written_number

MISSING = "Missing required value."
OTHER = "(other)"  # stands for every value that is no level
MAX_LISTED_LEVELS = 20  # in a message; of more levels, only the nearest are named
MAX_VALUE_LENGTH = 40  # characters of a value in a message
MAX_INTEGER = 2**53 - 1  # above it, neighbouring integers are the same float64
MAX_KEY = 2**63 - 1  # keys are compared as 64-bit integers
MAX_FEATURE = 3.4e38  # models compute with float32, whose largest number is 3.403e38
MAX_TARGET = 1e13  # XGBoost's sums of gradients overflow where rows times target reach about 1e21

Matrix = NDArray[np.float64]  # shape (rows, columns)
Vector = NDArray[np.float64]  # shape (rows,)
Value = float | int | bool | str | None
Record = dict[str, Value]


@dataclass(frozen=True)
class Column:  # pylint: disable=too-many-instance-attributes  # one for each key of a declaration
    """One column of a table.

    Attributes
    ----------
    name
        Name in the table and in requests.
    type
        One of `TYPES`.
    role
        One of `ROLES`. Models receive only columns with one of `FEATURE_ROLES`.
    unit, scale
        A stored value of 1.9 with unit USD and scale 100000 means 190,000 USD.
    description
        Short text for people.
    min, max
        Bounds of a number, both included, or None.
    nullable
        Whether values may be missing.
    categories
        Levels of a category, or of an ordinal from the lowest to the highest. A value is encoded as its index in this tuple.
    counts
        Training rows by level, the most frequent level first, or None if the levels are declared instead of learned.
    unseen
        What happens to a value that is no level: one of `UNSEEN`. By default "other" if the levels are learned, else "refuse".
    format
        How a date is written, in the directives of strptime. By default %Y-%m-%d.
    parse
        "number" if numbers may be written as text, such as "$1,200.50", "decimal_comma" if as "1.200,50 €"; else "".
    max_length
        The largest number of characters of a text that models receive; by default 10,000. 0 for other columns.
    components
        How many numbers such a text becomes; by default 32. 0 for other columns.
    """

    name: str
    type: str
    role: str = "feature"
    unit: str = ""
    scale: float = 1.0
    description: str = ""
    min: float | None = None
    max: float | None = None
    nullable: bool = False
    categories: tuple[str, ...] = ()
    counts: tuple[int, ...] | None = None
    unseen: str = ""
    format: str = ""
    parse: str = ""
    max_length: int = 0
    components: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "unseen", self.unseen or ("other" if self.is_learned else "refuse"))
        object.__setattr__(self, "format", self.format or (ISO_DATE if self.type == "date" else ""))
        if self.is_free_text:
            object.__setattr__(self, "max_length", self.max_length or MAX_LENGTH)
            object.__setattr__(self, "components", self.components or N_COMPONENTS)
        faults = find_faults(self)
        if faults:
            raise ConfigError("\n".join(f"Column {self.name}: {fault}" for fault in faults))

    @property
    def is_feature(self) -> bool:
        """Whether models may receive the column."""
        return self.role in FEATURE_ROLES

    @property
    def is_identifier(self) -> bool:
        """Whether values are compared exactly and never computed with."""
        return self.role in IDENTIFIER_ROLES

    @property
    def is_learned(self) -> bool:
        """Whether the levels are those of the training rows."""
        return self.counts is not None

    @property
    def declared_categories(self) -> tuple[str, ...] | str:
        """The categories as they are declared."""
        return AUTO if self.is_learned else self.categories

    @cached_property
    def codes(self) -> dict[str, float]:
        """The code of each level."""
        return {level: float(code) for code, level in enumerate(self.categories)}

    @property
    def unseen_code(self) -> float:
        """The code of a value that is no level."""
        return math.nan if self.unseen == "missing" else float(len(self.categories))

    @cached_property
    def _nearest(self) -> NearestLevels | None:
        """The index by which an error names the nearest levels, or None if it lists all, or if no level is refused."""
        is_listed = len(self.categories) <= MAX_LISTED_LEVELS
        return None if is_listed or self.unseen != "refuse" else NearestLevels(self.categories)

    def index_levels(self) -> None:
        """Build the index for messages now, not at the first refused value: 100,000 levels take 0.3 s."""
        _ = self._nearest

    @property
    def is_number(self) -> bool:
        """Whether the type is float or int."""
        return self.type in ("float", "int")

    @property
    def is_free_text(self) -> bool:
        """Whether models receive the values as texts, see `text_projection`. Identifiers are texts that they do not receive."""
        return self.type == "text" and self.is_feature

    @property
    def is_continuous(self) -> bool:
        """Whether encoded values lie on a line without levels: numbers, dates and the explained shares of texts."""
        return self.is_number or self.type in ("date", "text")

    @property
    def has_levels(self) -> bool:
        """Whether values are among levels: categories and ordinals."""
        return self.type in ("category", "ordinal")

    @property
    def lower_bound(self) -> float:
        """The lowest allowed number: the declared minimum, unless it is beyond the limit."""
        return -self.limit if self.min is None else max(self.min, -self.limit)

    @property
    def upper_bound(self) -> float:
        """The highest allowed number: the declared maximum, unless it is beyond the limit."""
        return self.limit if self.max is None else min(self.max, self.limit)

    @property
    def limit(self) -> float:
        """The largest size of a number that models can compute with, or that is exact in a key."""
        if self.is_identifier:
            return MAX_KEY if self.type == "int" else sys.float_info.max
        limit = MAX_TARGET if self.role == "target" else MAX_FEATURE
        return min(limit, MAX_INTEGER) if self.type == "int" else limit

    @property
    def unit_label(self) -> str:
        """The unit of the stored values, such as "100,000 USD" for unit USD and scale 100000; "" if none is declared."""
        return self.unit if self.scale == 1 else f"{self.scale:,.15g} {self.unit}"

    def validate(self, value: object) -> str | None:
        """Return why a value is invalid, as a sentence, or None if it is valid. The value None means missing."""
        if value is None:
            return None if self.nullable else MISSING
        if self.has_levels:
            return self._validate_level(value)
        if self.type == "date":
            return self._validate_date(value)
        if self.type == "text":
            return self._validate_text(value)
        if self.type == "bool":
            return None if isinstance(value, bool | np.bool_) else f"Not true or false: {_format_value(value)}."
        return self._validate_number(self._read_number(value))

    def _validate_text(self, value: object) -> str | None:
        if not isinstance(value, str):
            return f"Not text: {_format_value(value)}."
        if not self.is_free_text:
            return None
        if len(value) > self.max_length:
            return f"Must be at most {self.max_length:,} characters long (got {len(value):,})."
        return None if _is_unicode(value) else f"Not valid Unicode, with half of a surrogate pair: {_format_value(value)}."

    def _read_number(self, value: object) -> object:
        """Return the number that a text has, if numbers may be written as text; else the value."""
        number = parse_written_number(value, self.parse) if self.parse and isinstance(value, str) else None
        return value if number is None else number

    def _validate_level(self, value: object) -> str | None:
        if isinstance(value, str) and (value in self.codes or self.unseen != "refuse" or not self.categories):
            return None
        if self.unseen != "refuse" or not self.categories:
            return f"Not text: {_format_value(value)}."
        if self._nearest is None:
            return f"Must be one of {', '.join(self.categories)} (got {_format_value(value)})."
        nearest = ", ".join(map(_format_value, self._nearest.find(str(value)[:MAX_VALUE_LENGTH])))
        hint = f" The nearest: {nearest}." if nearest else ""
        return f"Must be one of {len(self.categories):,} levels (got {_format_value(value)}).{hint}"

    def _validate_date(self, value: object) -> str | None:
        try:
            if isinstance(value, str):
                parse_date(value, self.format)
                return None
        except (ValueError, OverflowError):
            pass  # reported below
        return f"Must be a date such as {format_date(0, self.format)}, in the format {self.format} (got {_format_value(value)})."

    def _validate_number(self, value: object) -> str | None:
        if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
            return f"Not a number: {_format_value(value)}."
        if not _is_finite(value):
            return f"Not a finite number: {_format_value(value)}."
        if self.type == "int" and value != int(value):
            return f"Not a whole number: {_format_value(value)}."
        if self.min is not None and value < self.min:
            return f"Must be at least {self.min:g} (got {_format_value(value)})."
        if self.max is not None and value > self.max:
            return f"Must be at most {self.max:g} (got {_format_value(value)})."
        return self._validate_size(value)

    def _validate_size(self, value: Any) -> str | None:
        if self.role == "weight" and value <= 0:
            return f"A weight must be above 0 (got {_format_value(value)})."
        limit = f"{self.limit:g}" if self.type == "float" else str(int(self.limit))
        message = f"Must be between -{limit} and {limit} (got {_format_value(value)})."
        if self.is_identifier and self.type == "int":
            is_rounded = not isinstance(value, int | np.integer) and abs(value) > MAX_INTEGER
            return f"{message} Declare a longer key with type: text." if is_rounded or abs(value) > self.limit else None
        if abs(value) <= self.limit:
            return None
        if self.limit == MAX_INTEGER:
            return f"{message} Larger integers are not exact: use type: float, or, for an identifier, role: key."
        return f"{message} Models cannot compute with larger numbers: use a larger unit, or correct the value."

    def encode(self, value: Value) -> float:
        """Encode a valid value: NaN if it is missing, a level's index in `categories`, a date's seconds, 0 or 1 for a bool.

        A text is NaN, since its numbers depend on the projection of the schema.
        """
        if value is None or self.type == "text":
            return math.nan
        return self._encode_text(value) if isinstance(value, str) else float(value)

    def _encode_text(self, text: str) -> float:
        if self.type == "date":
            return parse_date(text, self.format)
        if self.has_levels:
            return self.codes.get(text, self.unseen_code)
        number = parse_written_number(text, self.parse)
        if number is None:
            raise ValueError(f"Not a number: {_format_value(text)}.")
        return number

    def decode(self, number: float) -> Value:
        """Decode a number that `encode` returned."""
        if math.isnan(number):
            return None
        if self.type == "date":
            return format_date(number, self.format)
        if self.has_levels:
            return self.categories[int(number)] if number < len(self.categories) else OTHER
        return {"float": float, "int": int, "bool": bool}[self.type](number)

    def encode_series(self, series: Any) -> tuple[Vector, list[tuple[int, str]]]:
        """Encode a pandas column.

        Parameters
        ----------
        series
            A pandas Series. Pandas is not imported here, so servers run without it.

        Returns
        -------
        numbers
            The encoded values, shape (rows,); NaN for a missing or invalid value.
        reasons
            Row index and reason of each invalid value.
        """
        raw = series.to_numpy()
        if self.is_number and raw.dtype.kind in "fiu":
            numbers = raw.astype(np.float64)
            suspects = np.flatnonzero(self._is_invalid(numbers))
            values = [None if math.isnan(number) else number for number in raw[suspects].tolist()]
        else:
            values = series.to_numpy(dtype=object, na_value=None).tolist()
            suspects, numbers = np.arange(len(values)), np.array([self._try_encode(value) for value in values], dtype=np.float64)
            if self.has_levels:
                suspects = np.flatnonzero(np.isnan(numbers))
                values = [values[row] for row in suspects]
        reasons = ((int(row), self.validate(value)) for row, value in zip(suspects, values, strict=True))
        return numbers, [(row, reason) for row, reason in reasons if reason]

    def _try_encode(self, value: Any) -> float:
        """Encode a value, or return NaN if it is invalid."""
        code = self.codes.get(value) if isinstance(value, str) else None
        if code is not None:
            return code
        return math.nan if self.validate(value) else self.encode(value)

    def _is_invalid(self, numbers: Vector) -> NDArray[np.bool_]:
        is_valid = (numbers >= self.lower_bound) & (numbers <= self.upper_bound)
        if self.type == "int":
            is_valid &= numbers == np.floor(numbers)
        return ~is_valid

    def breaking_changes(self, previous: "Column") -> Iterator[str]:
        """Yield the changes since `previous` that reject values which were valid, apart from changed bounds."""
        if self.type != previous.type:
            yield f"changed its type from {previous.type} to {self.type}"
        elif self.unseen == "refuse":
            if previous.unseen != "refuse":
                yield "no longer accepts values that are no level"
            elif removed := sorted(set(previous.categories) - set(self.categories)):
                yield f"lost the category {removed[0]!r}"
        if previous.nullable and not self.nullable:
            yield "is no longer nullable"


def _format_value(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[: MAX_VALUE_LENGTH - 3]}..."


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a Python int above the largest float
        return False
