"""The schema of a table: its columns, the check of a frame, and the codec between rows and a matrix.

Everything that knows a column (frame check, request check, MLflow signature, drift bins) asks this module. A frame is
taken by duck typing, so that the server needs no pandas.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

import numpy as np

from housing.core.errors import ConfigError, TableError, Violation
from housing.schema.column import TYPES, Column, Matrix, Record, _breaking_column_changes


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
    def from_dict(cls, declaration: Mapping[str, Any]) -> Self:
        """Read a schema from its declaration: `name`, `columns` (name -> what Column takes), `description`.

        Raises ConfigError where there are no columns, or a column or an attribute of one is not known.
        """
        if not isinstance(declaration.get("columns"), Mapping):
            raise ConfigError(f"table {declaration['name']}: columns are missing; allowed: names with attributes below columns:")
        known = {item.name for item in fields(Column)} - {"name"}
        for name, attributes in declaration["columns"].items():
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
            for name, attributes in declaration["columns"].items()
        )
        return cls(name=declaration["name"], columns=columns, description=declaration.get("description", ""))

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

    def breaking_changes(self, previous: "Schema") -> list[str]:
        """Say what callers who send rows of an earlier schema would be refused for; bounds may change between versions."""
        mine, theirs = ({column.name: column for column in schema.features} for schema in (self, previous))
        reasons = [f"column {name} is gone" for name in theirs if name not in mine]
        reasons += [f"column {name} is new" for name in mine if name not in theirs]
        for name in theirs.keys() & mine.keys():
            reasons += [f"column {name} {reason}" for reason in _breaking_column_changes(mine[name], theirs[name])]
        return sorted(reasons)

    def can_encode(self, record: Mapping[str, Any]) -> bool:
        """Whether a row can be predicted, whatever else is in it."""
        return all(column.name in record and column.validate(record[column.name]) is None for column in self.features)

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
        problems: list[Violation] = []
        encoded = [column.encode_series(frame[column.name]) for column in columns]
        for column, (_, reasons) in zip(columns, encoded, strict=True):
            problems += [Violation(row, column.name, reason) for row, reason in reasons]
        if problems:
            problems.sort(key=lambda problem: problem.row or 0)
            raise TableError(f"{len(problems)} values do not fit table {self.name} (rows count from 0)", problems)
        return np.column_stack([numbers for numbers, _ in encoded])

    def require_columns(self, present: Sequence[str], columns: Sequence[Column], forbid_others: bool) -> None:
        """Raise TableError where a column is missing or there twice, or (with `forbid_others`) one is not declared."""
        problems = [Violation(None, column.name, "the column is missing") for column in columns if column.name not in present]
        problems += [
            Violation(None, column.name, "the column is there twice") for column in columns if present.count(column.name) > 1
        ]
        if forbid_others:
            declared = [column.name for column in self.columns]
            problems += [Violation(None, str(name), "the column is not declared") for name in present if name not in declared]
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
