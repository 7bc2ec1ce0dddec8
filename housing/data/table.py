"""The table: reading, validation against the schema, and its fingerprint."""

import json
import logging
import math
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from omegaconf import DictConfig

from housing.command_line.next_command import next_command
from housing.core.errors import ConfigError, HousingError, TableError, Violation
from housing.core.files import sha256
from housing.data.read_options import PLAIN, ReadOptions
from housing.data.reading import BATCH_ROWS, Cells, TextTable, read_batches
from housing.data.settings import TableSettings
from housing.data.text_fitting import fit_projection
from housing.data.typed_files import PARQUET, parquet_columns
from housing.data.violations import ViolationLog
from housing.schema.column import MAX_INTEGER, Column, Matrix, Value, Vector
from housing.schema.table_schema import Schema
from housing.schema.text_columns import NO_TEXTS, Texts
from housing.schema.written_numbers import PLAIN_INTEGER, PLAIN_NUMBER, parse_written_number

NUMBER_CHARACTERS = frozenset("0123456789+-.eE \t")  # of these, `float` accepts what PLAIN_NUMBER matches
MAX_INTEGER_LENGTH = 40  # characters; longer integers are out of range anyway

# Starts of key values that are no float64: the bits of no number, so that such a value equals no number.
BIG_INTEGER_TAG = b"\x01\0\0\0\0\0\xf8\xff"
TEXT_TAG = b"\x02\0\0\0\0\0\xf8\xff"

# A prepared table has one more column, and the fingerprint of the table that it was prepared from.
SPLIT_COLUMN = "housing.split"
FINGERPRINT_ATTRIBUTE = "housing.fingerprint"

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)  # compared by identity, so that splits of a table can be cached
class Table:
    """A table that fits its schema.

    Attributes
    ----------
    matrix
        Features, shape (rows, features + components). The numbers of texts are NaN until `learn` fits their projections.
    target
        Shape (rows,), in the target's unit.
    stored_keys
        The exact values of the columns `schema.key` as bytes, shape (rows,), or None if they follow from the matrix. See `keys`.
    fingerprint
        SHA-256 of the file, or "" for rows that are no file.
    weight
        How much each row counts in fits and scores, shape (rows,), or None if the table declares no weights.
    times
        The encoded values of the column with the role time, shape (rows,), or None without such a column.
    identifiers
        The exact values of each column with the role key, group or audit as bytes, None where a value is missing, shape (rows,).
    texts
        The values of each feature that is a text, None where one is missing, shape (rows,).
    """

    schema: Schema
    matrix: Matrix
    target: Vector
    stored_keys: NDArray[np.object_] | None
    fingerprint: str
    weight: Vector | None = None
    times: Vector | None = None
    identifiers: Mapping[str, NDArray[np.object_]] = field(default_factory=dict)
    texts: Mapping[str, NDArray[np.object_]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.target)

    def head(self, n_rows: int) -> "Table":
        """Return the first rows, with a fingerprint of their own."""
        fingerprint = f"{self.fingerprint}[:{n_rows}]"
        return replace(self.take(range(min(n_rows, len(self)))), fingerprint=fingerprint)

    def take(self, indices: Sequence[int] | NDArray[np.intp]) -> "Table":
        """Return some rows, without a fingerprint."""
        rows = np.asarray(indices, dtype=np.intp)
        times = None if self.times is None else self.times[rows]
        identifiers = {name: values[rows] for name, values in self.identifiers.items()}
        keys = None if self.stored_keys is None else self.stored_keys[rows]
        taken = Table(self.schema, self.matrix[rows], self.target[rows], keys, "", self.weight_of(rows))
        return replace(taken, times=times, identifiers=identifiers, texts=self.texts_of(rows))

    def bounded(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return as many of some rows as fit into memory with all their columns: here all of them."""
        return rows

    def texts_of(self, rows: NDArray[np.intp] | slice) -> dict[str, NDArray[np.object_]]:
        """Return the texts of some rows by column."""
        return {name: values[rows] for name, values in self.texts.items()}

    @property
    def keys(self) -> NDArray[np.object_]:
        """The values of the columns `schema.key` as bytes, shape (rows,). Rows with equal keys have equal bytes."""
        return _as_objects([key for batch in self.key_batches() for key in batch])

    def key_batches(self) -> Iterator[list[bytes]]:
        """Yield the keys of consecutive rows. Keys of all rows at once need more memory than the table."""
        for start in range(0, len(self), BATCH_ROWS):
            rows = slice(start, start + BATCH_ROWS)
            keys = None if self.stored_keys is None else self.stored_keys[rows].tolist()
            yield row_bytes(self.schema, self.matrix[rows], self.texts_of(rows)) if keys is None else keys

    def weight_of(self, rows: NDArray[np.intp]) -> Vector | None:
        """Return the weights of some rows, or None if all rows count alike."""
        return None if self.weight is None else self.weight[rows]

    def identify(self, name: str) -> NDArray[np.object_]:
        """Return bytes for each row that are equal for equal values of a column, and None for a missing value.

        Raises
        ------
        ConfigError
            If the column is no feature, key or group, so that its values are not known.
        """
        if name in self.identifiers:
            return self.identifiers[name]
        column = self.schema.features[self.schema.index(name)]
        if column.is_free_text:
            return _identifier_bytes(column, self.texts[name].tolist())
        return _identifier_bytes(column, [column.decode(code) for code in self.matrix[:, self.schema.index(name)].tolist()])

    def learn(self, rows: Sequence[int] | NDArray[np.intp]) -> "Table":
        """Return the table encoded with the levels and the projections of texts that are learned from some rows."""
        columns = [self.schema.features[index] for index in self.schema.texts.names]
        projections = {column.name: fit_projection(self.texts[column.name][rows], column.components) for column in columns}
        return self.encoded_as(replace(self.schema.with_levels(self._count_levels(rows)), projections=projections))

    def encoded_as(self, learned: Schema) -> "Table":
        """Return the table encoded with what another schema of the same columns has learned. Other levels are unseen."""
        if learned.levels == self.schema.levels and learned.projections == self.schema.projections:
            return self
        schema = replace(self.schema.with_levels(learned.levels), projections=learned.projections)
        matrix = self.matrix[:, : len(schema.features)].copy()
        for index, (before, after) in enumerate(zip(self.schema.features, schema.features, strict=True)):
            if after.is_learned:
                codes = level_codes(before, after)
                is_missing = np.isnan(matrix[:, index])
                matrix[:, index] = codes[np.where(is_missing, len(codes) - 1, matrix[:, index]).astype(np.intp)]
        return replace(self, schema=schema, matrix=schema.texts.add(matrix, self.texts, schema.projections))

    def _count_levels(self, rows: Sequence[int] | NDArray[np.intp]) -> dict[str, dict[str, int]]:
        """Return the levels that occur in some rows, with their numbers, for each column whose levels are learned."""
        counted = {}
        for index, column in enumerate(self.schema.features):
            if column.is_learned:
                codes = self.matrix[rows, index]
                counts = np.bincount(codes[~np.isnan(codes)].astype(np.intp), minlength=len(column.categories)).tolist()
                counted[column.name] = {level: count for level, count in zip(column.categories, counts, strict=False) if count}
        return counted

    def row_keys(self) -> list[bytes]:
        """Return a value for each row that is equal for rows with equal values in every column."""
        values = row_bytes(self.schema, self.matrix, self.texts)
        return [
            key + row + target.tobytes()
            for key, row, target in zip(self.keys, values, self.target.astype("<f8") + 0.0, strict=True)
        ]


def level_codes(before: Column, after: Column) -> Vector:
    """Return the new code of each level, of unseen and of missing values of a column whose levels are learned anew."""
    return np.array([*map(after.encode, before.categories), after.unseen_code, math.nan])


def load(data: DictConfig, max_rows: int | None = None) -> Table:
    """Read the table that a config of `conf/data` declares. See `read_table`."""
    return read_table(TableSettings.from_config(data), max_rows)


def read_table(settings: TableSettings, max_rows: int | None = None) -> Table:
    """Read and validate a table or a prepared table, or only its first `max_rows` rows.

    Raises
    ------
    HousingError
        If the file does not exist.
    TableError
        If it does not fit the schema.
    """
    if max_rows is not None and max_rows < 1:
        raise ConfigError(f"max_rows must be 1 or more, or null (got {max_rows})")
    path = require_file(settings)
    table = _read_table(path, sha256(path), json.dumps(settings.schema.to_dict()), settings.read)
    return table if max_rows is None else table.head(max_rows)


def require_file(settings: TableSettings) -> Path:
    """Return the path of a table's file. Raises HousingError if it does not exist."""
    if not settings.path.is_file():
        raise HousingError(f"{settings.path} does not exist. Get it with: {next_command('fetch', table=settings.name)}")
    return settings.path


@lru_cache(maxsize=4)  # the jobs of a sweep share one process and one table
def _read_table(path: Path, digest: str, schema_json: str, options: ReadOptions) -> Table:
    schema = Schema.from_dict(json.loads(schema_json))
    if path.suffix == PARQUET and SPLIT_COLUMN in parquet_columns(path):
        return validate_frame(schema, *_read_prepared(path))
    if any(column.is_learned for column in schema.features):  # levels are those of all rows
        return validate_frame(schema, read_frame(path, schema, options), digest)
    return _validate_frames(schema, map(pd.DataFrame, read_typed_batches(path, schema, options)), digest)


def _read_prepared(path: Path) -> tuple[pd.DataFrame, str]:
    """Return the columns of a prepared table, and the fingerprint of the table that it was prepared from."""
    try:
        frame = pd.read_parquet(path)
        return frame.drop(columns=SPLIT_COLUMN), str(frame.attrs[FINGERPRINT_ATTRIBUTE])
    except (ValueError, KeyError) as error:
        raise TableError(
            f"{path} was not written by housing.prepare ({error}). Write it with: {next_command('prepare', f'out={path}')}", []
        ) from error


@dataclass(frozen=True)
class CheckedRows:
    """Rows of a table whose values are checked.

    Attributes
    ----------
    matrix
        The encoded features, shape (rows, features).
    labelled
        The indices of the rows that have a target.
    target
        Of the labelled rows.
    """

    matrix: Matrix
    labelled: NDArray[np.intp]
    target: Vector
    violations: list[Violation]


def check_rows(schema: Schema, frame: pd.DataFrame) -> CheckedRows:
    """Check the values of all columns but the ignored ones, and encode features and target."""
    matrix, violations = schema.encode_features(frame)
    labelled = labelled_rows(schema, frame)
    target, reasons = schema.target.encode_series(frame[schema.target.name].iloc[labelled])
    violations += [Violation(int(labelled[row]), schema.target.name, reason) for row, reason in reasons]
    for column in checked_columns(schema):
        violations += _find_violations(column, frame[column.name])
    return CheckedRows(matrix, labelled, target, violations)


def checked_columns(schema: Schema) -> list[Column]:
    """Return the columns that are neither feature nor target and whose values are checked."""
    return [column for column in schema.unused if column.role != "ignore"]


def validate_frame(schema: Schema, frame: pd.DataFrame, digest: str) -> Table:
    """Convert a frame to a table. Rows without a target are dropped, which is logged.

    Raises
    ------
    TableError
        If a value violates the schema. The message lists each violation.
    """
    schema.require_table_columns(list(frame.columns))
    schema = learn_levels(
        schema, {column.name: exact_values(frame[column.name]) for column in schema.features if column.is_learned}
    )
    return _validate_frames(schema, [frame], digest)


def _validate_frames(schema: Schema, frames: Iterable[pd.DataFrame], digest: str) -> Table:
    """Convert frames of consecutive rows to a table, as `validate_frame`. The levels of the schema are learned already."""
    names = [*(column.name for column in checked_columns(schema)), *schema.texts.names.values()]  # the matrix has the others
    matrix, violations, n_rows = np.empty((0, len(schema.features))), ViolationLog(), 0
    target = np.empty(0)
    others: list[pd.DataFrame] = []
    for frame in frames:
        schema.require_table_columns(list(frame.columns))
        checked = check_rows(schema, frame)
        violations.add(checked.violations, n_rows)
        n_rows += len(frame)
        are_all = len(checked.labelled) == len(frame)
        matrix = _append_rows(matrix, checked.matrix if are_all else checked.matrix[checked.labelled])
        target = _append_rows(target, checked.target)
        others.append(frame[names].iloc[checked.labelled].reset_index(drop=True))  # an index of numbers takes 8 bytes a row
    violations.raise_if_any(schema, n_rows)
    report_unlabelled(schema, n_rows, len(matrix))
    frame = others[0] if len(others) == 1 else pd.concat(others, ignore_index=True)
    keys = [exact_values(frame[column.name]) for column in schema.columns if column.role == "key"]
    table = make_table(schema, matrix, target, list(zip(*keys, strict=True)), digest, schema.texts.from_frame(frame))
    return replace(
        table, weight=read_weights(schema, frame), times=encode_times(schema, frame), identifiers=_identifiers(schema, frame)
    )


def _append_rows(grown: NDArray[Any], rows: NDArray[Any]) -> NDArray[Any]:
    """Return the rows of both. The first array grows in place: the pages of a large one move, and no row is in memory twice."""
    if len(grown) == 0:
        return np.require(rows, requirements="O")  # a view cannot grow
    n_rows = len(grown)
    grown.resize((n_rows + len(rows), *grown.shape[1:]), refcheck=False)
    grown[n_rows:] = rows
    return grown


def weight_column(schema: Schema) -> Column | None:
    """Return the column that says how much a row counts, or None if all rows count alike."""
    return next((column for column in schema.columns if column.role == "weight"), None)


def read_weights(schema: Schema, frame: pd.DataFrame) -> Vector | None:
    """Return the weights of validated rows, or None if all rows count alike."""
    column = weight_column(schema)
    return None if column is None else frame[column.name].to_numpy(dtype=np.float64)


def encode_times(schema: Schema, frame: pd.DataFrame) -> Vector | None:
    """Return the encoded values of the column with the role time, or None without such a column."""
    columns = [column for column in schema.columns if column.role == "time"]
    return columns[0].encode_series(frame[columns[0].name])[0] if columns else None


def _identifiers(schema: Schema, frame: pd.DataFrame) -> dict[str, NDArray[np.object_]]:
    columns = [column for column in schema.columns if column.is_identifier]
    return {column.name: _identifier_bytes(column, exact_values(frame[column.name])) for column in columns}


def _identifier_bytes(column: Column, values: Sequence[Value]) -> NDArray[np.object_]:
    identifiers = np.empty(len(values), dtype=np.object_)
    identifiers[:] = [None if value is None else key_bytes(column, value) for value in values]
    return identifiers


def labelled_rows(schema: Schema, frame: pd.DataFrame) -> NDArray[np.intp]:
    """Return the indices of the rows that have a target."""
    return np.flatnonzero(frame[schema.target.name].notna().to_numpy())


def report_unlabelled(schema: Schema, n_rows: int, n_labelled: int) -> None:
    """Log how many rows have no target. Raises TableError if no row has one."""
    if not n_labelled:
        raise TableError(f"Table {schema.name} has no rows" + (f" with a {schema.target.name}" if n_rows else ""), [])
    if n_labelled < n_rows:
        dropped = f"{n_rows - n_labelled:,} of {n_rows:,} rows"
        log.warning("Table %s: dropped %s, which have no %s (the target).", schema.name, dropped, schema.target.name)


def learn_levels(schema: Schema, values: Mapping[str, Iterable[Value]]) -> Schema:
    """Return a schema whose learned levels are the values of these columns."""
    counts = {name: Counter(value for value in column if isinstance(value, str)) for name, column in values.items()}
    return schema.with_levels(counts) if counts else schema


def exact_values(series: Any) -> list[Value]:
    """Return the values of a pandas column as Python objects, None for a missing one."""
    values: list[Value] = series.to_numpy(dtype=object, na_value=None).tolist()
    return values


def _find_violations(column: Column, series: Any) -> list[Violation]:
    reasons = ((row, column.validate(value)) for row, value in enumerate(exact_values(series)))
    return [Violation(row, column.name, reason) for row, reason in reasons if reason is not None]


def make_table(
    schema: Schema,
    matrix: Matrix,
    target: Vector,
    key_values: Sequence[Sequence[Value]],
    digest: str,
    texts: Texts = NO_TEXTS,
) -> Table:
    """Return a table of validated rows.

    Parameters
    ----------
    schema
        The columns of the table.
    matrix, target
        Encoded features, shape (rows, len(schema.features)), and targets, shape (rows,).
    key_values
        For each row, the values of the columns with the role key. Without such columns, the features are the key.
    digest
        The fingerprint.
    texts
        The values of each feature that is a text.
    """
    values = {name: np.array(column, dtype=np.object_) for name, column in texts.items()}
    key_columns = [column for column in schema.columns if column.role == "key"]
    keys = None
    if key_columns:
        keys = _as_objects([b"".join(map(key_bytes, key_columns, row)) for row in key_values])
    elif any(column.is_learned for column in schema.features):  # keys name the levels, whose codes in the matrix can change
        keys = _as_objects(row_bytes(schema, matrix, values))
    return Table(schema, schema.texts.add(matrix, values, schema.projections), target, keys, digest, texts=values)


def _as_objects(values: Sequence[bytes]) -> NDArray[np.object_]:
    objects = np.empty(len(values), dtype=np.object_)
    objects[:] = values
    return objects


def row_bytes(schema: Schema, matrix: Matrix, texts: Texts) -> list[bytes]:
    """Return the bytes of each row, equal for equal rows. Of levels and texts it takes the words: codes depend on the table.

    Words come in the order of the columns, so that a column has the same bytes as a learned category and as a text.
    """
    written = [index for index, column in enumerate(schema.features) if column.is_learned or column.is_free_text]
    numbers = np.delete(matrix[:, : len(schema.features)], written, axis=1)
    canonical = np.ascontiguousarray(np.where(np.isnan(numbers), np.nan, numbers) + 0.0, dtype="<f8")  # one NaN, one zero
    rows = [row.tobytes() for row in canonical]
    for index in written:
        column = schema.features[index]
        words = texts[column.name] if column.is_free_text else [column.decode(code) for code in matrix[:, index].tolist()]
        rows = [row + _text_bytes(word) for row, word in zip(rows, words, strict=True)]
    return rows


def _text_bytes(value: Value) -> bytes:
    text = b"" if value is None else str(value).encode()
    return TEXT_TAG + (-1 if value is None else len(text)).to_bytes(8, "little", signed=True) + text


def key_bytes(column: Column, value: Value) -> bytes:
    """Return a key's value as bytes: those of its float64 if that is exact, so that splits by key stay as they were."""
    if (column.type == "text" or column.is_learned) and value is not None:
        return _text_bytes(value)
    if isinstance(value, int | np.integer) and abs(value) > MAX_INTEGER:
        return BIG_INTEGER_TAG + int(value).to_bytes(8, "little", signed=True)
    return struct.pack("<d", column.encode(value) + 0.0)  # one zero


def read_key(column: Column, key: bytes) -> Value:
    """Return the value that `key_bytes` wrote."""
    start = len(TEXT_TAG)
    if key.startswith(TEXT_TAG):
        return key[start + 8 :].decode()
    if key.startswith(BIG_INTEGER_TAG):
        return int.from_bytes(key[start:], "little", signed=True)
    return column.decode(struct.unpack("<d", key)[0])


def read_frame(path: Path, schema: Schema, options: ReadOptions = PLAIN, suffix: str | None = None) -> pd.DataFrame:
    """Read a file, with the columns of a schema typed, and ignored ones as text. Only one batch at a time is in memory as text.

    Raises
    ------
    TableError
        As `reading.read_batches`, and if a cell cannot be parsed as its column's type.
    """
    batches = list(read_typed_batches(path, schema, options, suffix))
    names = list(batches[0])
    return pd.DataFrame({name: _concatenate([batch.pop(name) for batch in batches]) for name in names}, copy=False)


def read_typed_batches(
    path: Path, schema: Schema, options: ReadOptions = PLAIN, suffix: str | None = None
) -> Iterator[dict[str, Any]]:
    """Yield batches of rows as `read_frame` returns them, at least one. Errors are raised after the last row."""
    columns = [column for column in schema.columns if column.role != "ignore"]
    violations: list[Violation] = []
    for number, text in enumerate(read_batches(path, options, suffix)):
        try:
            parsed = parse_columns(text, schema, columns, path)
        except TableError as error:
            violations += [replace(item, row=number * BATCH_ROWS + cast(int, item.row)) for item in error.violations]
        if not violations:
            yield parsed
    if violations:
        raise unparsable(path, schema, violations)


def _concatenate(parts: Sequence[Any]) -> Any:
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else pd.concat(parts, ignore_index=True)


def unparsable(path: Path, schema: Schema, violations: Sequence[Violation]) -> TableError:
    """Return the error that lists cells that the types of their columns cannot hold."""
    return TableError(f"{path} violates the schema of table {schema.name} (rows count from 0):", violations)


def parse_columns(text: TextTable, schema: Schema, columns: Sequence[Column], path: Path) -> dict[str, Any]:
    """Return the parsed values of those columns of a file that the schema declares, and the other columns as text."""
    declared = {column.name: column for column in columns}
    parsed: dict[str, Any] = {}
    violations: list[Violation] = []
    for index, name in enumerate(text.header):
        cells = [row[index] for row in text.rows]
        if name not in declared:
            parsed[name] = pd.Series(cells, dtype="str")
            continue
        column = declared[name]
        parsed[name], invalid_rows = parse_column(column, cells, text.options)
        violations += [Violation(row, name, str(parse_cell(column, cells[row], text.options)[1])) for row in invalid_rows]
    if violations:
        violations.sort(key=lambda violation: violation.row or 0)
        raise unparsable(path, schema, violations)
    return parsed


def parse_column(column: Column, cells: Cells, options: ReadOptions) -> tuple[Any, list[int]]:
    """Return the values of a column, and the rows of the cells that its type cannot hold."""
    numbers = _try_parse_numbers(column, cells, options)
    if numbers is not None:
        return numbers, []
    invalid_rows = [row for row, cell in enumerate(cells) if not _can_hold(column, cell, options)]
    if invalid_rows:
        return None, invalid_rows
    values = [_parse_value(column, cell, options) for cell in cells]
    if column.type == "int" and column.is_identifier:
        return pd.Series(values, dtype="Int64"), []
    if column.is_number:
        return np.array([math.nan if value is None else value for value in values], dtype=np.float64), []
    return pd.Series(values, dtype="boolean" if column.type == "bool" else "str"), []


def _try_parse_numbers(column: Column, cells: Cells, options: ReadOptions) -> Vector | None:
    """Return a column of numbers, or None if a cell needs a closer look. It is several times as fast as cell by cell."""
    if not column.is_number or column.is_identifier:
        return None
    texts = [options.number(cell) for cell in cells] if options.rewrites_numbers else cells
    if None in texts or not NUMBER_CHARACTERS.issuperset("".join(cast(Cells, texts))):
        return None
    try:
        numbers = np.array([float(text) if text else math.nan for text in texts], dtype=np.float64)
    except ValueError:
        return None
    return None if (np.abs(numbers) > column.limit).any() else numbers


def _can_hold(column: Column, cell: str, options: ReadOptions) -> bool:
    """Return whether a column's type can hold the value of a cell. The schema checks the value itself later."""
    value = _parse_value(column, cell, options)
    if column.is_identifier:
        return parse_cell(column, cell, options)[1] is None
    if value is None or column.has_levels or column.type in ("date", "text"):
        return True
    return not isinstance(value, str) and abs(value) <= column.limit


def _parse_value(column: Column, cell: str, options: ReadOptions) -> Value:
    """Return the value of a cell, its text if it cannot be parsed, or None if it is empty."""
    if not cell:
        return None
    if column.parse:
        number = parse_written_number(cell, column.parse)
        return cell if number is None else number
    if column.type == "bool":
        value = options.boolean(cell)
        return cell if value is None else value
    text = options.number(cell) if column.is_number else None
    if text is not None and PLAIN_NUMBER.fullmatch(text):
        is_integer = column.type == "int" and len(text) <= MAX_INTEGER_LENGTH and PLAIN_INTEGER.fullmatch(text)
        return int(text) if is_integer else float(text)
    return cell


def parse_cell(column: Column, cell: str, options: ReadOptions = PLAIN) -> tuple[Value, str | None]:
    """Parse one cell as `read_frame` does. Return its value, and why the schema does not allow it, or None if it does."""
    value = _parse_value(column, cell, options)
    reason = column.validate(value)
    if reason is not None and isinstance(value, float) and math.isinf(value):
        reason = reason.replace("inf", cell.strip())  # 1e999 is too large for a float
    text = options.number(cell) if column.is_number else None
    if reason is None and column.is_identifier and text:
        reason = _inexact_key(column, text.strip())
    return value, reason


def _inexact_key(column: Column, cell: str) -> str | None:
    """Return why a number does not identify the same as its text, or None if it is."""
    if PLAIN_INTEGER.fullmatch(cell):
        digits = cell.lstrip("+-")
        if len(digits) > 1 and digits[0] == "0":
            return f"A number has no leading zeros (got {cell!r}). Declare the column with type: text."
        if column.type == "float" and float(cell) != int(cell):
            return f"Not exact as a float (got {cell!r}). Declare the column with type: int, or type: text."
    return None
