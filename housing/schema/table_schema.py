"""Table schema: the columns of a table, the validation of rows and their encoding as a matrix.

Tables, requests, the MLflow signature and the drift histograms all use it, so they agree. Pandas is not imported here:
servers run without it.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

import numpy as np

from housing.core.errors import ConfigError, TableError, Violation
from housing.schema.column import TYPES, Column, Matrix, Record


@dataclass(frozen=True)
class Schema:
    """The columns of one table.

    Attributes
    ----------
    name
        Name of the table; it is part of paths.
    columns
        All columns, in the order of the declaration.
    description
        Short text for people.
    features
        The columns that a model receives, in the order of the matrix: all but keys and the target.
    """

    name: str
    columns: tuple[Column, ...]
    description: str = ""
    features: tuple[Column, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and re.fullmatch(r"\w[\w.-]*", self.name)):  # it is part of paths
            raise ConfigError(
                f"A table's name must consist of letters, digits, '_', '-' and '.' and start with a letter, digit or '_'"
                f" (got {self.name!r})."
            )
        names = [column.name for column in self.columns]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise ConfigError(f"Table {self.name} declares column {duplicates[0]} more than once.")
        for role, counts, expected in (
            ("target", (1,), "exactly one column"),
            ("latitude", (0, 1), "at most one column"),
            ("longitude", (0, 1), "at most one column"),
        ):
            count = sum(column.role == role for column in self.columns)
            if count not in counts:
                raise ConfigError(f"Table {self.name} must have {expected} with the role {role} (got {count}).")
        object.__setattr__(self, "features", tuple(column for column in self.columns if column.role not in ("key", "target")))
        if not self.features:
            raise ConfigError(f"Table {self.name} has no feature column. Add a column without the roles key and target.")

    @classmethod
    def from_dict(cls, declaration: Mapping[str, Any]) -> Self:
        """Return the schema that a mapping declares.

        Parameters
        ----------
        declaration
            `name`, `columns` (a mapping from names to attributes of `Column`) and optionally `description`.

        Raises
        ------
        ConfigError
            If columns are missing, or a column or one of its attributes is invalid.
        """
        if not isinstance(declaration.get("columns"), Mapping):
            raise ConfigError(f"Table {declaration['name']} has no columns. Add columns: with a name and attributes for each.")
        known = {item.name for item in fields(Column)} - {"name"}
        for name, attributes in declaration["columns"].items():
            if not isinstance(name, str):
                raise ConfigError(
                    f"Table {declaration['name']}: YAML reads the name of a column as {name!r} ({type(name).__name__})."
                    " Put it in quotes, as it is written in the table."
                )
            if not isinstance(attributes, Mapping):
                raise ConfigError(f"Column {name}: needs attributes, such as {{type: float}} (got {attributes!r}).")
            unknown = sorted(set(attributes) - known)
            if unknown:
                raise ConfigError(f"Column {name}: unknown attribute {unknown[0]}. Attributes: {', '.join(sorted(known))}.")
            if not isinstance(attributes.get("categories") or [], list | tuple):
                raise ConfigError(f"Column {name}: categories must be a list of strings (got {attributes['categories']!r}).")
            if "type" not in attributes:
                raise ConfigError(f"Column {name}: type is missing. It must be one of {', '.join(TYPES)}.")
        columns = tuple(
            Column(name=name, **{**attributes, "categories": tuple(attributes.get("categories") or ())})
            for name, attributes in declaration["columns"].items()
        )
        return cls(name=declaration["name"], columns=columns, description=declaration.get("description", ""))

    def to_dict(self) -> dict[str, Any]:
        """Return the declaration, which `from_dict` reads."""
        columns = {column.name: {key: value for key, value in asdict(column).items() if key != "name"} for column in self.columns}
        return {"name": self.name, "description": self.description, "columns": columns}

    @property
    def target(self) -> Column:
        """The column that models predict."""
        return next(column for column in self.columns if column.role == "target")

    @property
    def key(self) -> tuple[Column, ...]:
        """The columns that identify a row: those with the role key, or all features if there are none."""
        return tuple(column for column in self.columns if column.role == "key") or self.features

    def index(self, name: str) -> int:
        """Return the index of a feature column in the matrix. Raises ConfigError if there is no such feature."""
        names = [column.name for column in self.features]
        if name not in names:
            raise ConfigError(f"Table {self.name} has no feature column {name}. Feature columns: {', '.join(names)}.")
        return names.index(name)

    def coordinates(self) -> tuple[int, int] | None:
        """Return the indices of latitude and longitude in the matrix, or None if the table lacks either."""
        index_of = {column.role: index for index, column in enumerate(self.features)}
        return (index_of["latitude"], index_of["longitude"]) if {"latitude", "longitude"} <= set(index_of) else None

    def interface(self) -> tuple[object, ...]:
        """Return the properties that callers and models depend on. Descriptions, units and bounds are not among them."""
        columns = (*self.features, self.target)
        return self.name, *((column.name, column.type, column.role, column.nullable, column.categories) for column in columns)

    def interface_hash(self) -> str:
        """Return a hash of the interface."""
        return hashlib.sha256(json.dumps(self.interface()).encode()).hexdigest()

    def breaking_changes(self, previous: "Schema") -> list[str]:
        """Return the changes since `previous` for which its callers would be rejected, apart from changed bounds."""
        present, former = ({column.name: column for column in schema.features} for schema in (self, previous))
        changes = [f"column {name} was removed" for name in former if name not in present]
        changes += [f"column {name} was added" for name in present if name not in former]
        for name in former.keys() & present.keys():
            changes += [f"column {name} {change}" for change in present[name].breaking_changes(former[name])]
        return sorted(changes)

    def can_encode(self, record: Mapping[str, Any]) -> bool:
        """Return whether a row has a valid value for each feature. Other fields are ignored."""
        return all(column.name in record and column.validate(record[column.name]) is None for column in self.features)

    def signature(self) -> list[tuple[str, str]]:
        """Return name and MLflow type of each feature column. Numbers are doubles: MLflow's integers reject 5.0 and NaN."""
        types = {"float": "double", "int": "double", "bool": "boolean", "category": "string"}
        return [(column.name, types[column.type]) for column in self.features]

    def encode_frame(self, frame: Any, columns: Sequence[Column] | None = None, forbid_others: bool = False) -> Matrix:
        """Validate and encode the columns of a frame.

        Parameters
        ----------
        frame
            A pandas DataFrame.
        columns
            The columns to encode; the features if None.
        forbid_others
            Whether to reject columns that the schema does not declare.

        Returns
        -------
        Matrix
            Shape (rows, columns), float64.

        Raises
        ------
        TableError
            With each invalid value, or each missing, duplicate or undeclared column.
        """
        columns = self.features if columns is None else columns
        self.require_columns(list(frame.columns), columns, forbid_others)
        violations: list[Violation] = []
        encoded = [column.encode_series(frame[column.name]) for column in columns]
        for column, (_, reasons) in zip(columns, encoded, strict=True):
            violations += [Violation(row, column.name, reason) for row, reason in reasons]
        if violations:
            raise self.violated(violations)
        return np.column_stack([numbers for numbers, _ in encoded])

    def violated(self, violations: Sequence[Violation]) -> TableError:
        """Return the error that lists invalid values by row."""
        in_order = sorted(violations, key=lambda violation: violation.row or 0)
        return TableError(f"{len(in_order)} values violate the schema of table {self.name} (rows count from 0):", in_order)

    def require_columns(self, present: Sequence[str], columns: Sequence[Column], forbid_others: bool) -> None:
        """Raise TableError if a column is missing or duplicate, or, with `forbid_others`, undeclared."""
        violations = [Violation(None, column.name, "Missing column.") for column in columns if column.name not in present]
        violations += [Violation(None, column.name, "Duplicate column.") for column in columns if present.count(column.name) > 1]
        if forbid_others:
            declared = [column.name for column in self.columns]
            violations += [Violation(None, str(name), "Undeclared column.") for name in present if name not in declared]
        if violations:
            raise TableError(f"The columns are not those of table {self.name}:", violations)

    def encode_records(self, records: Sequence[Mapping[str, Any]]) -> Matrix:
        """Encode valid records as a matrix, shape (records, features)."""
        rows = [[column.encode(record[column.name]) for column in self.features] for record in records]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.features))

    def decode(self, matrix: Matrix) -> list[Record]:
        """Decode the rows of a matrix, shape (rows, features), into records."""
        return [
            {column.name: column.decode(number) for column, number in zip(self.features, row, strict=True)}
            for row in matrix.tolist()
        ]
