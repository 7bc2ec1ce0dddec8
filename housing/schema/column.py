"""TODO docstring."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError

TYPES = ("float", "int", "bool", "category")


ROLES = ("feature", "latitude", "longitude", "key", "target")


Matrix = NDArray[np.float64]


Vector = NDArray[np.float64]


Value = float | int | bool | str | None


Record = dict[str, Value]


@dataclass(frozen=True)
class Column:
    """One column: its type, what values it allows, and the part it plays."""

    name: str
    type: str
    role: str = "feature"
    unit: str = ""
    scale: float = 1.0  # the stored value 1.9 with scale 100000 and unit USD means 190,000 USD
    description: str = ""
    min: float | None = None
    max: float | None = None
    nullable: bool = False
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._require(isinstance(self.nullable, bool), f"nullable is {self.nullable!r}; allowed: true, false")
        bounds = (self.min, self.max)
        self._require(
            all(bound is None or (type(bound) in (int, float) and _is_finite(bound)) for bound in bounds),
            f"min and max are {bounds}; allowed: finite numbers",
        )
        self._require(self.type in TYPES, f"type is {self.type!r}; allowed: {', '.join(TYPES)}")
        self._require(self.role in ROLES, f"role is {self.role!r}; allowed: {', '.join(ROLES)}")
        self._require(
            type(self.scale) in (int, float) and _is_finite(self.scale) and self.scale > 0,
            f"scale must be a finite number above 0 (got {self.scale!r})",
        )
        self._require(self.scale == 1 or bool(self.unit and self.is_number), "scale needs a unit and the type float or int")
        self._require((self.type == "category") == bool(self.categories), "categories go with type category, and only with it")
        self._require(all(isinstance(name, str) for name in self.categories), "categories are strings: put them in quotes")
        self._require(len(set(self.categories)) == len(self.categories), "a category is named twice")
        self._require(self.is_number or (self.min is None and self.max is None), "min and max go with type float or int")
        self._require(self.min is None or self.max is None or self.min < self.max, "min is not below max")
        self._require(self.role in ("feature", "key") or self.is_number, f"a {self.role} is a float or an int")
        self._require(self.role in ("feature", "key") or not self.nullable, f"a {self.role} is never nullable")

    def _require(self, condition: bool, message: str) -> None:
        if not condition:
            raise ConfigError(f"column {self.name}: {message}")

    @property
    def is_number(self) -> bool:
        """Whether the column holds float or int."""
        return self.type in ("float", "int")

    @property
    def title(self) -> str:
        """The description with a capital first letter, or the name if the column has no description."""
        return self.description[:1].upper() + self.description[1:] or self.name

    @property
    def unit_label(self) -> str:
        """The unit of the stored values, such as "100,000 USD" for unit USD and scale 100000; "" if none is declared."""
        return self.unit if self.scale == 1 else f"{self.scale:,.15g} {self.unit}"

    def validate(self, value: object) -> str | None:
        """Say why the value is not allowed, or None where it is. None is a missing value."""
        if value is None:
            return None if self.nullable else "is missing"
        if self.type == "category":
            allowed = f"allowed: {', '.join(self.categories)}"
            return (
                None
                if isinstance(value, str) and value in self.categories
                else f"{_format_value(value)} is not a category; {allowed}"
            )
        if self.type == "bool":
            return None if isinstance(value, bool | np.bool_) else f"{_format_value(value)} is not true or false"
        return self._validate_number(value)

    def _validate_number(self, value: object) -> str | None:
        if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
            return f"{_format_value(value)} is not a number"
        if not _is_finite(value):
            return f"{_format_value(value)} is not a finite number"
        if self.type == "int" and value != int(value):
            return f"{_format_value(value)} is not a whole number"
        if self.min is not None and value < self.min:
            return f"{_format_value(value)} is below {self.min:g}"
        if self.max is not None and value > self.max:
            return f"{_format_value(value)} is above {self.max:g}"
        return None

    def encode(self, value: Value) -> float:
        """Turn an allowed value into its number: missing is NaN, a category its index in the declared list."""
        if value is None:
            return math.nan
        return float(self.categories.index(value)) if isinstance(value, str) else float(value)

    def decode(self, number: float) -> Value:
        """Turn a number of the matrix back into the value it stands for."""
        if math.isnan(number):
            return None
        if self.type == "category":
            return self.categories[int(number)]
        return {"float": float, "int": int, "bool": bool}[self.type](number)

    def encode_series(self, series: Any) -> tuple[Vector, list[tuple[int, str]]]:
        """Encode a frame's column; beside the numbers come (row, reason) of each value that is not allowed."""
        raw = series.to_numpy()
        if self.is_number and raw.dtype.kind in "fiu":
            numbers = raw.astype(np.float64)
            suspects = np.flatnonzero(self._is_invalid(numbers))
            values = [None if math.isnan(number) else number for number in numbers[suspects].tolist()]
        else:
            values = series.to_numpy(dtype=object, na_value=None).tolist()
            suspects = np.arange(len(values))
            numbers = np.array([math.nan if self.validate(value) else self.encode(value) for value in values], dtype=np.float64)
        reasons = ((int(row), self.validate(value)) for row, value in zip(suspects, values, strict=True))
        return numbers, [(row, reason) for row, reason in reasons if reason]

    def _is_invalid(self, numbers: Vector) -> NDArray[np.bool_]:
        allowed = np.isfinite(numbers)
        if self.type == "int":
            allowed &= numbers == np.floor(numbers)
        if self.min is not None:
            allowed &= numbers >= self.min
        if self.max is not None:
            allowed &= numbers <= self.max
        return ~allowed


def _breaking_column_changes(column: Column, previous: Column) -> Iterator[str]:
    if column.type != previous.type:
        yield f"is of type {column.type}, it was {previous.type}"
    elif gone := sorted(set(previous.categories) - set(column.categories)):
        yield f"has no category {gone[0]!r} any more"
    if previous.nullable and not column.nullable:
        yield "may not be missing any more"


def _format_value(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond the largest float
        return False
