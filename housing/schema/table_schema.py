"""Table schema: the columns of a table, the validation of rows and their encoding as a matrix.

Tables, requests, the MLflow signature and the drift histograms all use it, so they agree. Pandas is not imported here:
servers run without it.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

import numpy as np

from housing.core.errors import ConfigError, TableError, Violation
from housing.schema.column import Column, Matrix, Record, Value
from housing.schema.declaration import AUDIT, AUTO, FEATURE_ROLES, TYPES
from housing.schema.histogram_bins import RESERVED_LEVELS
from housing.schema.text_columns import NO_TEXTS, TextColumns, Texts
from housing.schema.text_projection import TextProjection

SINGLE_ROLES = ("latitude", "longitude", "time", "weight")  # at most one column each
UNDECLARED = "Undeclared column. To leave it out, add to columns: {0}: {{role: ignore}}"
COLUMN_ATTRIBUTES = ({item.name for item in fields(Column)} | {"levels"}) - {"name", "counts"}


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
    projections
        What the texts of each column become, by name; empty until it is fitted on training rows.
    features
        The columns that a model receives, in the order of the matrix.
    texts
        The texts among the features.
    """

    name: str
    columns: tuple[Column, ...]
    description: str = ""
    projections: Mapping[str, TextProjection] = field(default_factory=dict, compare=False)
    features: tuple[Column, ...] = field(init=False, compare=False)
    texts: TextColumns = field(init=False, compare=False)

    def __post_init__(self) -> None:
        features = tuple(column for column in self.columns if column.is_feature)
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "texts", TextColumns.of(features))
        faults = list(self._faults())
        if faults:
            raise ConfigError("\n".join(faults))

    def _faults(self) -> Iterator[str]:
        if not (isinstance(self.name, str) and re.fullmatch(r"\w[\w.-]*", self.name)):  # it is part of paths
            yield (
                f"A table's name must consist of letters, digits, '_', '-' and '.' and start with a letter, digit or '_'"
                f" (got {self.name!r})."
            )
        counts = Counter(column.name for column in self.columns)
        for name, count in counts.items():
            if count > 1:
                yield f"Table {self.name} declares column {name} more than once."
        roles = Counter(column.role for column in self.columns)
        yield from _target_faults(self.name, roles["target"])
        for role in SINGLE_ROLES:
            if roles[role] > 1:
                yield f"Table {self.name} must have at most one column with the role {role} (got {roles[role]})."
        if not self.features:
            yield f"Table {self.name} has no feature column. Add a column with one of the roles {', '.join(FEATURE_ROLES)}."

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
            If columns are missing, or with each invalid column or attribute.
        """
        if not isinstance(declaration.get("columns"), Mapping):
            raise ConfigError(f"Table {declaration['name']} has no columns. Add columns: with a name and attributes for each.")
        columns, faults = [], []
        for name, attributes in declaration["columns"].items():
            try:
                columns.append(_parse_column(name, attributes))
            except ConfigError as error:
                faults.append(str(error))
        if faults:
            n_targets = sum(_role(attributes) == "target" for attributes in declaration["columns"].values())
            raise ConfigError("\n".join([*faults, *_target_faults(declaration["name"], n_targets)]))
        return cls(name=declaration["name"], columns=tuple(columns), description=declaration.get("description", ""))

    def to_dict(self) -> dict[str, Any]:
        """Return the declaration, which `from_dict` reads."""
        columns = {column.name: _declare_column(column) for column in self.columns}
        return {"name": self.name, "description": self.description, "columns": columns}

    @property
    def levels(self) -> dict[str, dict[str, int]]:
        """The learned levels of each column that has such, with the number of training rows."""
        return {
            column.name: dict(zip(column.categories, column.counts, strict=True))
            for column in self.features
            if column.counts is not None
        }

    def with_levels(self, levels: Mapping[str, Mapping[str, int]]) -> Self:
        """Return the schema with levels of the columns with learned levels, the most frequent first."""
        return replace(
            self,
            columns=tuple(
                _with_levels(column, levels[column.name]) if column.name in levels else column for column in self.columns
            ),
        )

    @property
    def target(self) -> Column:
        """The column that models predict."""
        return next(column for column in self.columns if column.role == "target")

    @property
    def key(self) -> tuple[Column, ...]:
        """The columns that identify a row: those with the role key, or all features if there are none."""
        return tuple(column for column in self.columns if column.role == "key") or self.features

    @property
    def unused(self) -> tuple[Column, ...]:
        """The columns that a row to predict may have, but that no model receives: all but features and target."""
        return tuple(column for column in self.columns if not column.is_feature and column.role != "target")

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
        return self.name, *(
            (
                *(column.name, column.type, column.role, column.nullable, column.declared_categories),
                *((column.components,) if column.is_free_text else ()),
            )
            for column in columns
        )

    def interface_hash(self) -> str:
        """Return a hash of the interface."""
        return hashlib.sha256(json.dumps(self.interface()).encode()).hexdigest()

    def breaking_changes(self, previous: "Schema") -> list[str]:
        """Return the changes since `previous` for which its callers would be rejected, apart from changed bounds."""
        present, former = ({column.name: column for column in schema.features} for schema in (self, previous))
        accepted = {column.name for column in self.columns if column.role != "target"}
        changes = [f"column {name} was removed" for name in former if name not in accepted]
        changes += [f"column {name} was added" for name in present if name not in former and not present[name].nullable]
        for name in former.keys() & present.keys():
            changes += [f"column {name} {change}" for change in present[name].breaking_changes(former[name])]
        return sorted(changes)

    def can_encode(self, record: Mapping[str, Any]) -> bool:
        """Return whether a row has a valid value for each feature. Other fields are ignored, an absent one is missing."""
        return all(column.validate(record.get(column.name)) is None for column in self.features)

    def signature(self) -> list[tuple[str, str, bool]]:
        """Return for each feature its name, its MLflow type and whether it is required.

        Numbers are doubles: MLflow's integers reject 5.0 and NaN.
        """
        types = {"float": "double", "int": "double", "bool": "boolean"}
        return [(column.name, types.get(column.type, "string"), not column.nullable) for column in self.features]

    def encode_frame(self, frame: Any) -> Matrix:
        """Validate and encode the features of a pandas DataFrame as a matrix, shape (rows, features + components).

        An absent nullable column is missing in each row. Other columns are ignored.

        Raises
        ------
        TableError
            With each invalid value, or each missing or duplicate column.
        """
        present = list(frame.columns)
        self._raise_column_violations(
            _column_violations(present, [column for column in self.features if column.name in present or not column.nullable])
        )
        matrix, violations = self.encode_features(frame)
        if violations:
            raise self.violated(violations)
        return self.texts.add(matrix, self.texts.from_frame(frame), self.projections)

    def encode_features(self, frame: Any) -> tuple[Matrix, list[Violation]]:
        """Return the features of a DataFrame, shape (rows, features), and its invalid values. An absent column is missing.

        Texts are only checked: their numbers are NaN.
        """
        matrix, violations = np.full((len(frame), len(self.features)), np.nan), []
        for index, column in enumerate(self.features):
            if column.name in frame.columns:
                matrix[:, index], reasons = column.encode_series(frame[column.name])
                violations += [Violation(row, column.name, reason) for row, reason in reasons]
        return matrix, violations

    def violated(self, violations: Sequence[Violation], n_values: int | None = None) -> TableError:
        """Return the error that lists invalid values by row. `n_values` counts them if one violation stands for several."""
        in_order = sorted(violations, key=lambda violation: violation.row or 0)
        return TableError(
            f"{n_values or len(in_order)} values violate the schema of table {self.name} (rows count from 0):", in_order
        )

    def require_table_columns(self, present: Sequence[str]) -> None:
        """Raise TableError unless a table has all columns but those with the role ignore, and no undeclared ones."""
        declared = {column.name for column in self.columns}
        needed = [column for column in self.columns if column.role != "ignore" or column.name in present]
        undeclared = [Violation(None, str(name), UNDECLARED.format(name)) for name in present if name not in declared]
        self._raise_column_violations([*_column_violations(present, needed), *undeclared])

    def _raise_column_violations(self, violations: Sequence[Violation]) -> None:
        if violations:
            raise TableError(f"The columns are not those of table {self.name}:", violations)

    def encode_records(self, records: Sequence[Mapping[str, Any]]) -> Matrix:
        """Encode valid records as a matrix, shape (records, features + components). An absent column is missing."""
        rows = [[column.encode(record.get(column.name)) for column in self.features] for record in records]
        matrix = np.array(rows, dtype=np.float64).reshape(len(rows), len(self.features))
        return self.texts.add(matrix, self.texts.from_records(records), self.projections)

    def decode(self, matrix: Matrix, texts: Texts = NO_TEXTS) -> list[Record]:
        """Decode the rows of a matrix, shape (rows, features + components), into records.

        A matrix does not keep texts. Their columns are left out of the records, unless the `texts` of the rows are given.
        """
        columns = [self._decoded(index, column, matrix, texts) for index, column in enumerate(self.features)]
        named = [(column.name, values) for column, values in zip(self.features, columns, strict=True) if values is not None]
        return [{name: values[row] for name, values in named} for row in range(len(matrix))]

    def _decoded(self, index: int, column: Column, matrix: Matrix, texts: Texts) -> Sequence[Value] | None:
        if column.is_free_text:
            return list(texts[column.name]) if column.name in texts else None
        return [column.decode(number) for number in matrix[:, index].tolist()]


def without_audits(schema: Schema) -> Schema:
    """Return a schema without the columns that only an evaluation reads."""
    return replace(schema, columns=tuple(column for column in schema.columns if column.role != AUDIT))


def _role(attributes: object) -> object:
    return attributes.get("role") if isinstance(attributes, Mapping) else None


def _target_faults(name: str, n_targets: int) -> Iterator[str]:
    if n_targets != 1:
        yield f"Table {name} must have exactly one column with the role target (got {n_targets})."


def _with_levels(column: Column, levels: Mapping[str, int]) -> Column:
    counted = sorted(((level, count) for level, count in levels.items() if level not in RESERVED_LEVELS), key=_by_frequency)
    return replace(column, categories=tuple(level for level, _ in counted), counts=tuple(count for _, count in counted))


def _by_frequency(level: tuple[str, int]) -> tuple[int, str]:
    return -level[1], level[0]


def _declare_column(column: Column) -> dict[str, Any]:
    declared = {key: value for key, value in asdict(column).items() if key not in ("name", "counts")}
    levels = {"levels": dict(zip(column.categories, column.counts, strict=True))} if column.counts else {}
    return {**declared, "categories": column.declared_categories, **levels}


def _column_violations(present: Sequence[str], columns: Sequence[Column]) -> list[Violation]:
    missing = [Violation(None, column.name, "Missing column.") for column in columns if column.name not in present]
    return missing + [Violation(None, column.name, "Duplicate column.") for column in columns if present.count(column.name) > 1]


def _parse_column(name: Any, attributes: Any) -> Column:
    """Return the column that a mapping declares. Raises ConfigError."""
    if not isinstance(name, str):
        raise ConfigError(
            f"YAML reads the name of a column as {name!r} ({type(name).__name__})."
            " Put it in quotes, as it is written in the table."
        )
    if not isinstance(attributes, Mapping):
        raise ConfigError(f"Column {name}: needs attributes, such as {{type: float}} (got {attributes!r}).")
    unknown = sorted(set(attributes) - COLUMN_ATTRIBUTES)
    if unknown:
        raise ConfigError(
            f"Column {name}: unknown attribute {', '.join(unknown)}. Attributes: {', '.join(sorted(COLUMN_ATTRIBUTES))}."
        )
    levels = attributes.get("levels") or {}
    categories = list(levels) if attributes.get("categories") == AUTO else attributes.get("categories") or ()
    if not isinstance(categories, list | tuple):
        raise ConfigError(f"Column {name}: categories must be a list of strings, or auto (got {categories!r}).")
    declared: dict[str, Any] = {"type": "text"} if attributes.get("role") == "ignore" else {}
    declared |= {key: value for key, value in attributes.items() if key not in ("categories", "levels")}
    is_learned = attributes.get("categories") == AUTO
    declared |= {"categories": tuple(categories), "counts": tuple(levels.values()) if is_learned else None}
    if "type" not in declared:
        raise ConfigError(f"Column {name}: type is missing. It must be one of {', '.join(TYPES)}.")
    return Column(name=name, **declared)
