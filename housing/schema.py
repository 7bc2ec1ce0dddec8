"""The schema of a table: its columns, the check of a frame, and the codec between rows and a matrix.

Everything that knows a column (frame check, request check, MLflow signature, drift bins) asks this module. A frame is
taken by duck typing, so that the server needs no pandas.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from housing.errors import ConfigError, Problem, TableError

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
        self._require((self.type == "category") == bool(self.categories), "categories go with type category, and only with it")
        self._require(all(isinstance(name, str) for name in self.categories), "categories are strings: put them in quotes")
        self._require(len(set(self.categories)) == len(self.categories), "a category is named twice")
        self._require(self.is_number or (self.min is None and self.max is None), "min and max go with type float or int")
        self._require(self.min is None or self.max is None or self.min < self.max, "min is not below max")
        self._require(self.role in ("feature", "key") or self.is_number, f"a {self.role} is a float or an int")
        self._require(self.role in ("feature", "key") or not self.nullable, f"a {self.role} is never nullable")

    def _require(self, holds: bool, reason: str) -> None:
        if not holds:
            raise ConfigError(f"column {self.name}: {reason}")

    @property
    def is_number(self) -> bool:
        """Whether the column holds float or int."""
        return self.type in ("float", "int")

    def reason(self, value: object) -> str | None:
        """Say why the value is not allowed, or None where it is. None is a missing value."""
        if value is None:
            return None if self.nullable else "is missing"
        if self.type == "category":
            allowed = f"allowed: {', '.join(self.categories)}"
            return (
                None if isinstance(value, str) and value in self.categories else f"{_shown(value)} is not a category; {allowed}"
            )
        if self.type == "bool":
            return None if isinstance(value, bool | np.bool_) else f"{_shown(value)} is not true or false"
        return self._number_reason(value)

    def _number_reason(self, value: object) -> str | None:
        if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
            return f"{_shown(value)} is not a number"
        if not _is_finite(value):
            return f"{_shown(value)} is not a finite number"
        if self.type == "int" and value != int(value):
            return f"{_shown(value)} is not a whole number"
        if self.min is not None and value < self.min:
            return f"{_shown(value)} is below {self.min:g}"
        if self.max is not None and value > self.max:
            return f"{_shown(value)} is above {self.max:g}"
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
            suspects = np.flatnonzero(self._suspect(numbers))
            values = [None if math.isnan(number) else number for number in numbers[suspects].tolist()]
        else:
            values = series.to_numpy(dtype=object, na_value=None).tolist()
            suspects = np.arange(len(values))
            numbers = np.array([math.nan if self.reason(value) else self.encode(value) for value in values], dtype=np.float64)
        reasons = ((int(row), self.reason(value)) for row, value in zip(suspects, values, strict=True))
        return numbers, [(row, reason) for row, reason in reasons if reason]

    def _suspect(self, numbers: Vector) -> NDArray[np.bool_]:
        allowed = np.isfinite(numbers)
        if self.type == "int":
            allowed &= numbers == np.floor(numbers)
        if self.min is not None:
            allowed &= numbers >= self.min
        if self.max is not None:
            allowed &= numbers <= self.max
        return ~allowed


def _narrower(column: Column, before: Column) -> Iterator[str]:
    if column.type != before.type:
        yield f"is of type {column.type}, it was {before.type}"
    elif gone := sorted(set(before.categories) - set(column.categories)):
        yield f"has no category {gone[0]!r} any more"
    if before.nullable and not column.nullable:
        yield "may not be missing any more"


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond the largest float
        return False


@dataclass(frozen=True)
class Schema:
    """The columns of one table. `features` is what a model sees, in the order of the matrix."""

    name: str
    columns: tuple[Column, ...]
    description: str = ""
    features: tuple[Column, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and re.fullmatch(r"\w[\w.-]*", self.name)):  # it is part of paths
            raise ConfigError(
                f"table {self.name!r}: its name is not allowed; allowed: letters, digits, '_', then also '-' and '.'"
            )
        names = [column.name for column in self.columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"table {self.name}: column {twice[0]} is declared twice")
        for role, allowed in (("target", (1,)), ("latitude", (0, 1)), ("longitude", (0, 1))):
            count = sum(column.role == role for column in self.columns)
            if count not in allowed:
                raise ConfigError(
                    f"table {self.name}: {count} columns have the role {role}; allowed: {' or '.join(map(str, allowed))}"
                )
        object.__setattr__(self, "features", tuple(column for column in self.columns if column.role not in ("key", "target")))
        if not self.features:
            raise ConfigError(f"table {self.name}: no column is left for a model to see")

    @classmethod
    def from_dict(cls, declared: Mapping[str, Any]) -> Self:
        """Read a schema from its declaration: `name`, `columns` (name -> what Column takes), `description`.

        Raises ConfigError where there are no columns, or a column or an attribute of one is not known.
        """
        if not isinstance(declared.get("columns"), Mapping):
            raise ConfigError(f"table {declared['name']}: columns are missing; allowed: names with attributes below columns:")
        known = {item.name for item in fields(Column)} - {"name"}
        for name, attributes in declared["columns"].items():
            if not isinstance(name, str) or not isinstance(attributes, Mapping):
                raise ConfigError(f"column {name}: a column is a name (text) with attributes, such as {{type: float}}")
            unknown = sorted(set(attributes) - known)
            if unknown:
                raise ConfigError(f"column {name}: unknown attribute {unknown[0]}; allowed: {', '.join(sorted(known))}")
            if not isinstance(attributes.get("categories") or [], list | tuple):
                raise ConfigError(f"column {name}: categories is {attributes['categories']!r}; allowed: a list of strings")
            if "type" not in attributes:
                raise ConfigError(f"column {name}: type is missing; allowed: {', '.join(TYPES)}")
        columns = tuple(
            Column(name=name, **{**attributes, "categories": tuple(attributes.get("categories") or ())})
            for name, attributes in declared["columns"].items()
        )
        return cls(name=declared["name"], columns=columns, description=declared.get("description", ""))

    def to_dict(self) -> dict[str, Any]:
        """Give the declaration that `from_dict` reads."""
        columns = {column.name: {key: value for key, value in asdict(column).items() if key != "name"} for column in self.columns}
        return {"name": self.name, "description": self.description, "columns": columns}

    @property
    def target(self) -> Column:
        """The column that is predicted."""
        return next(column for column in self.columns if column.role == "target")

    @property
    def key(self) -> tuple[Column, ...]:
        """The columns that identify a row: the declared ones, or else all that a model sees."""
        return tuple(column for column in self.columns if column.role == "key") or self.features

    def index(self, name: str) -> int:
        """Give a feature column's place in the matrix. Raises ConfigError for a name that is not there."""
        names = [column.name for column in self.features]
        if name not in names:
            raise ConfigError(f"table {self.name} has no column {name}; it has {', '.join(names)}")
        return names.index(name)

    def coordinates(self) -> tuple[int, int] | None:
        """Give the places of latitude and longitude in the matrix, or None where the table has no coordinates."""
        places = {column.role: place for place, column in enumerate(self.features)}
        return (places["latitude"], places["longitude"]) if {"latitude", "longitude"} <= set(places) else None

    def interface(self) -> tuple[object, ...]:
        """Give what a caller and a model depend on; descriptions, units and bounds may change between versions."""
        columns = (*self.features, self.target)
        return self.name, *((column.name, column.type, column.role, column.nullable, column.categories) for column in columns)

    def interface_hash(self) -> str:
        """Give a hash that is equal where the interface is."""
        return hashlib.sha256(json.dumps(self.interface()).encode()).hexdigest()

    def broken_for(self, before: "Schema") -> list[str]:
        """Say what callers who send rows of an earlier schema would be refused for; bounds may change between versions."""
        mine, theirs = ({column.name: column for column in schema.features} for schema in (self, before))
        reasons = [f"column {name} is gone" for name in theirs if name not in mine]
        reasons += [f"column {name} is new" for name in mine if name not in theirs]
        for name in theirs.keys() & mine.keys():
            reasons += [f"column {name} {reason}" for reason in _narrower(mine[name], theirs[name])]
        return sorted(reasons)

    def takes(self, record: Mapping[str, Any]) -> bool:
        """Whether a row can be predicted, whatever else is in it."""
        return all(column.name in record and column.reason(record[column.name]) is None for column in self.features)

    def signature(self) -> list[tuple[str, str]]:
        """Give (name, MLflow type) of each feature column. Numbers are doubles: MLflow's integers refuse 5.0 and NaN."""
        types = {"float": "double", "int": "double", "bool": "boolean", "category": "string"}
        return [(column.name, types[column.type]) for column in self.features]

    def encode_frame(self, frame: Any, columns: Sequence[Column] | None = None, forbid_others: bool = False) -> Matrix:
        """Check a frame and turn its columns (default: the features) into a float64 matrix, one column each.

        Raises TableError, which names each value that is not allowed, a missing column and (with `forbid_others`) an
        undeclared one.
        """
        columns = self.features if columns is None else columns
        self.require_columns(list(frame.columns), columns, forbid_others)
        problems: list[Problem] = []
        encoded = [column.encode_series(frame[column.name]) for column in columns]
        for column, (_, reasons) in zip(columns, encoded, strict=True):
            problems += [Problem(row, column.name, reason) for row, reason in reasons]
        if problems:
            problems.sort(key=lambda problem: problem.row or 0)
            raise TableError(f"{len(problems)} values do not fit table {self.name} (rows count from 0)", problems)
        return np.column_stack([numbers for numbers, _ in encoded])

    def require_columns(self, present: Sequence[str], columns: Sequence[Column], forbid_others: bool) -> None:
        """Raise TableError where a column is missing or there twice, or (with `forbid_others`) one is not declared."""
        problems = [Problem(None, column.name, "the column is missing") for column in columns if column.name not in present]
        problems += [
            Problem(None, column.name, "the column is there twice") for column in columns if present.count(column.name) > 1
        ]
        if forbid_others:
            declared = [column.name for column in self.columns]
            problems += [Problem(None, str(name), "the column is not declared") for name in present if name not in declared]
        if problems:
            raise TableError(f"the frame does not have the columns of table {self.name}", problems)

    def encode_records(self, records: Sequence[Mapping[str, Any]]) -> Matrix:
        """Turn records that were checked into the matrix, shape (records, features)."""
        rows = [[column.encode(record[column.name]) for column in self.features] for record in records]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.features))

    def decode(self, matrix: Matrix) -> list[Record]:
        """Turn rows of the matrix back into records."""
        return [
            {column.name: column.decode(number) for column, number in zip(self.features, row, strict=True)}
            for row in matrix.tolist()
        ]


BINS = 10


def reference(schema: Schema, matrix: Matrix, predictions: Vector) -> dict[str, Any]:
    """Give the bins of each feature column and of the prediction, with the share of the training rows in each.

    A number has the training deciles as inner edges (a bin is right-closed), a category or bool one bin a level; rows
    with the value missing are a share of their own. Shares of a column add up to 1. Beside them stand the lowest and the
    highest value, None where all are missing.
    """
    columns = {column.name: _bins(column, matrix[:, place]) for place, column in enumerate(schema.features)}
    return {"rows": len(matrix), "columns": columns, "prediction": _bins(schema.target, predictions)}


def _bins(column: Column, numbers: Vector) -> dict[str, Any]:
    present = numbers[~np.isnan(numbers)]
    edges: Vector
    if column.is_number:
        deciles = np.quantile(present, np.arange(1, BINS) / BINS) if present.size else np.empty(0)
        edges = np.unique(deciles).astype(np.float64)
    else:
        edges = np.arange(max(len(column.categories), 2) - 1, dtype=np.float64) + 0.5
    counts = binned(numbers, edges)
    total = max(len(numbers), 1)
    ends = (float(present.min()), float(present.max())) if present.size else (None, None)
    return {
        "edges": edges.tolist(),
        "shares": (counts / total).tolist(),
        "missing": float(len(numbers) - present.size) / total,
        "lowest": ends[0],
        "highest": ends[1],
    }


def binned(numbers: Vector, edges: Vector) -> NDArray[np.intp]:
    """Count the numbers in each right-closed bin between inner edges; a missing number is in none."""
    return np.bincount(np.searchsorted(edges, numbers[~np.isnan(numbers)], side="left"), minlength=len(edges) + 1)
