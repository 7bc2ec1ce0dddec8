"""Splits of a table into training, validation and test rows. Only the promotion gate scores the test rows."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from housing.core.config import instantiate
from housing.core.errors import ConfigError
from housing.data.table import Table
from housing.data.units import Units
from housing.schema.column import Column, Matrix, Vector

Rows = NDArray[np.intp]
SECONDS_OF_DAY = 86_400
MISSING_GROUP = b"missing:"  # starts the bytes of a row that belongs to no group


@dataclass(frozen=True)
class Split:
    """Row indices of the three parts.

    Attributes
    ----------
    units
        The units of all rows of the table, each of which is in one part only. None: each row is one.
    """

    train: Rows
    valid: Rows
    test: Rows
    units: Units | None = None

    @property
    def fitted_until(self) -> float | None:
        """The latest time of the training and validation rows, or None if the split does not go from past to future."""
        if self.units is None or self.units.times is None:
            return None
        return float(self.units.times[np.concatenate([self.train, self.valid])].max())

    def units_of(self, rows: Rows) -> Units | None:
        """Return the units of some rows, or None if each row is one."""
        return None if self.units is None else self.units.take(rows)

    def fingerprint(self) -> str:
        """Return a hash that is equal if and only if all three parts are equal."""
        digest = hashlib.sha256()
        for rows in (self.train, self.valid, self.test):
            digest.update(np.ascontiguousarray(rows, dtype="<i8").tobytes() + b"|")
        return digest.hexdigest()


@dataclass(frozen=True)
class SplitSettings:
    """A split function and its arguments, as one file of `conf/split` declares them."""

    function: str  # import path
    arguments: str  # JSON, so that settings can be compared and cached

    @classmethod
    def create(cls, function: str, **arguments: Any) -> Self:
        """Make settings from an import path and keyword arguments."""
        return cls(function, json.dumps(arguments))

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Self:
        """Read the settings of a split from its config."""
        resolved: Any = OmegaConf.to_container(cfg, resolve=True)
        return cls.create(resolved.pop("_target_"), **resolved)

    @property
    def is_stable(self) -> bool:
        """Whether rows keep their part when rows are added or targets are corrected. A split by time moves its borders."""
        return self.function in {f"{stable.__module__}.{stable.__qualname__}" for stable in (split_by_hash, split_by_group)}


def split(table: Table, cfg: DictConfig) -> Split:
    """Split a table as a config of `conf/split` declares. See `split_table`."""
    return split_table(table, SplitSettings.from_config(cfg))


@lru_cache(maxsize=4)  # the jobs of a sweep share one process, one table and one split
def split_table(table: Table, settings: SplitSettings) -> Split:
    """Split a table.

    Raises
    ------
    ConfigError
        If an argument is out of range, or if a part is empty.
    """
    arguments = json.loads(settings.arguments)
    parts: Split = instantiate(OmegaConf.create({"_target_": settings.function, **arguments}), table)
    for name, rows in (("train", parts.train), ("valid", parts.valid), ("test", parts.test)):
        if rows.size == 0:
            function = settings.function.rpartition(".")[2]
            raise ConfigError(
                f"The split leaves no {name} rows: {function} of {len(table)} rows with {arguments}."
                " Use more rows or other shares."
            )
    return parts


def split_by_hash(table: Table, test: float, valid: float, salt: str) -> Split:
    """Split by a salted hash of each row's key. `test` and `valid` are shares of all rows.

    A row keeps its part when rows are added or its target is corrected.
    """
    return _split_by_position(_hash_positions(table.key_batches(), salt), test, valid)


def _hash_positions(key_batches: Iterable[Iterable[bytes]], salt: str) -> Vector:
    """Return a number from 0 to below 1 for each key, which looks random."""
    hash_key = partial(hashlib.blake2b, digest_size=8, key=salt.encode())
    digests = bytearray()
    for keys in key_batches:
        digests += b"".join([hash_key(key).digest() for key in keys])
    return np.asarray(np.frombuffer(digests, dtype="<u8") / 2.0**64, dtype=np.float64)


def _split_by_position(position: Vector, test: float, valid: float, units: Units | None = None) -> Split:
    _check_shares({"test": test, "valid": valid, "test + valid": test + valid})
    is_test, is_valid = position < test, (position >= test) & (position < test + valid)
    return Split(np.flatnonzero(~is_test & ~is_valid), np.flatnonzero(is_valid), np.flatnonzero(is_test), units)


def stratified_split(table: Table, test: float, valid: float, salt: str, bins: int) -> Split:
    """Split the rows of each quantile bin of the target in the order of a salted hash of their keys.

    The shares are exact in each bin, up to one row. Rows with the same key stay together, in the bin of their mean target. When
    rows are added, the bins change a little, and few rows move.
    """
    if bins < 2:
        raise ConfigError(f"split.bins must be 2 or more (got {bins})")
    keys, of_row, counts = np.unique(table.keys, return_inverse=True, return_counts=True)
    target = np.bincount(of_row, table.target) / counts
    bin_of_key = np.searchsorted(np.unique(np.quantile(target, np.arange(1, bins) / bins)), target, side="left")
    position, hashes = np.empty(len(keys)), _hash_positions([keys], salt)
    for number in np.unique(bin_of_key):
        inside = np.flatnonzero(bin_of_key == number)
        position[inside[np.argsort(hashes[inside])]] = (np.arange(len(inside)) + 0.5) / len(inside)
    return _split_by_position(position[of_row], test, valid)


def random_split(table: Table, test: float, valid: float, seeds: Sequence[int]) -> Split:
    """Split with scikit-learn's `train_test_split`, twice.

    `seeds[0]` draws the test rows, a share `test` of all rows. `seeds[1]` draws the validation rows, a share `valid` of the rest.
    """
    from sklearn.model_selection import train_test_split  # pylint: disable=import-outside-toplevel  # takes 3 s to import

    _check_shares({"test": test, "valid": valid})
    if len(seeds) != 2 or not all(isinstance(seed, int) and 0 <= seed < 2**32 for seed in seeds):
        raise ConfigError(f"split.seeds must be two whole numbers, 0 or above (got {list(seeds)})")
    rest, test_rows = train_test_split(np.arange(len(table)), test_size=test, random_state=seeds[0])
    train_rows, valid_rows = train_test_split(rest, test_size=valid, random_state=seeds[1])
    return Split(train_rows, valid_rows, test_rows)


def split_by_group(table: Table, by: str | None, test: float, valid: float, salt: str) -> Split:
    """Split by a salted hash of each row's group, so that the rows of a group are in the same part. See `group_units`.

    A group keeps its part when rows are added.
    """
    keys, name = _group_keys(table, by)
    return _split_by_position(_hash_positions([keys], salt), test, valid, _number_units(name, keys))


def split_by_time(table: Table, by: str | None, gap: float, test: float, valid: float) -> Split:
    """Split by time: the latest rows are test rows, those before them validation rows, the oldest training rows.

    `test` and `valid` are shares of all rows. Rows with equal times are in the same part, so a part may be larger. Rows in the
    `gap` before validation rows and before test rows are in no part. See `time_units` for `by`, and for the unit of `gap`.
    """
    _check_shares({"test": test, "valid": valid, "test + valid": test + valid})
    _check_gap(gap)
    units = time_units(table, by)
    times = units.times
    assert times is not None
    test_start = _start_of_last(times, round(test * len(times)))
    valid_start = _start_of_last(times[times < test_start - gap], round(valid * len(times)))
    is_valid = (times >= valid_start) & (times < test_start - gap)
    return Split(np.flatnonzero(times < valid_start - gap), np.flatnonzero(is_valid), np.flatnonzero(times >= test_start), units)


def _start_of_last(times: Vector, n_rows: int) -> float:
    """Return the time from which on there are at least `n_rows` rows, or the first time if there are fewer."""
    return float(np.sort(times)[max(0, len(times) - max(1, n_rows))]) if times.size else -np.inf


def spatial_block_split(table: Table, cell_degrees: float, test: float, valid: float, seed: int) -> Split:
    """Split by whole grid cells in random order. `test` and `valid` are shares of the cells.

    Cells are sorted by latitude, then longitude, and permuted by `numpy.random.RandomState(seed)`. The first cells are test
    cells, the next are validation cells.
    """
    _check_shares({"test": test, "valid": valid, "test + valid": test + valid})
    units = grid_cells(table, cell_degrees)
    random = np.random.RandomState(seed)  # pylint: disable=no-member  # it exists, but pylint cannot see it
    cells = random.permutation(units.of_row.max() + 1)
    bounds = (int(test * len(cells)), int((test + valid) * len(cells)))
    test_rows, valid_rows, train_rows = (np.flatnonzero(np.isin(units.of_row, part)) for part in np.split(cells, bounds))
    return Split(train_rows, valid_rows, test_rows, units)


def group_units(table: Table, by: str | None) -> Units:
    """Return the group of each row: the value of the column `by`, a feature, a key or a group.

    None: the column with the role group, or the coordinates if there is no such column. A row without a value is a group of its
    own.

    Raises
    ------
    ConfigError
        If there is no such column, or if several columns have the role group.
    """
    keys, name = _group_keys(table, by)
    return _number_units(name, keys)


def time_units(table: Table, by: str | None) -> Units:
    """Return the time of each row: the value of the column `by`, a number or a date. None: the column with the role time.

    Times of a date are whole days, those of a number are in the number's unit.

    Raises
    ------
    ConfigError
        If there is no such column, or if it has missing values.
    """
    column, times = _time_column(table, by)
    n_missing = int(np.isnan(times).sum())
    if n_missing:
        raise ConfigError(f"Column {column.name} has no time in {n_missing:,} of {len(table):,} rows. A split by time needs all.")
    is_date = column.type == "date"
    times = np.floor(times / SECONDS_OF_DAY) if is_date else times
    name = f"days of {column.name}" if is_date else f"values of {column.name}"
    return Units(name, np.unique(times, return_inverse=True)[1], times)


def _time_column(table: Table, by: str | None) -> tuple[Column, Vector]:
    schema = table.schema
    if by is None or by in (column.name for column in schema.columns if column.role == "time"):
        for column in schema.columns:
            if column.role == "time" and table.times is not None:
                return column, table.times
        dates = [column.name for column in schema.features if column.type == "date"] or ["COLUMN"]
        raise ConfigError(
            f"Table {schema.name} has no column with the role time. Add to its config, for the column that says when a row was"
            f" observed: {dates[0]}: {{type: date, role: time}}. To keep a date as a feature, add split.by={dates[0]} to the"
            " command."
        )
    index = schema.index(by)
    if not (schema.features[index].is_number or schema.features[index].type == "date"):
        raise ConfigError(f"split.by must be a number or a date for a split by time (got {by}: {schema.features[index].type}).")
    return schema.features[index], table.matrix[:, index]


def _group_keys(table: Table, by: str | None) -> tuple[list[bytes], str]:
    """Return the bytes of each row's group, and what the groups are."""
    names = [column.name for column in table.schema.columns if column.role == "group"] if by is None else [by]
    if len(names) > 1:
        raise ConfigError(
            f"Table {table.schema.name} has several columns with the role group: {', '.join(names)}."
            f" Choose one: split.by={names[0]}"
        )
    if not names:
        coordinates = np.ascontiguousarray(_coordinates(table), dtype="<f8") + 0.0  # -0.0 and 0.0 are the same location
        return [row.tobytes() for row in coordinates], "locations"
    values = table.identify(names[0])
    keys = [MISSING_GROUP + key if value is None else value for value, key in zip(values, table.keys, strict=True)]
    return keys, f"values of {names[0]}"


def _number_units(name: str, keys: Sequence[bytes]) -> Units:
    number_of: dict[bytes, int] = {}
    return Units(name, np.array([number_of.setdefault(key, len(number_of)) for key in keys], dtype=np.intp))


def grid_cells(table: Table, cell_degrees: float) -> Units:
    """Return the square cell of the map, with sides of `cell_degrees`, of each row."""
    if not cell_degrees > 0:
        raise ConfigError(f"cell_degrees must be above 0 (got {cell_degrees})")
    cells = np.floor(_coordinates(table) / cell_degrees)
    return Units("map cells", np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1))


def _coordinates(table: Table) -> Matrix:
    """Return latitude and longitude of each row, shape (rows, 2)."""
    coordinates = table.schema.coordinates()
    if coordinates is None:
        raise ConfigError(
            f"Table {table.schema.name} has no columns with the roles latitude and longitude."
            " Declare the roles in the table's config, or split by a column: split=grouped split.by=COLUMN"
        )
    return table.matrix[:, coordinates]


def _check_shares(shares: Mapping[str, float]) -> None:
    for name, share in shares.items():
        if not 0.0 < share < 1.0:
            raise ConfigError(f"split: the share {name} must be above 0 and below 1 (got {share:g})")


def _check_gap(gap: float) -> None:
    if not 0 <= gap < np.inf:
        raise ConfigError(f"gap must be a finite number, 0 or above (got {gap})")
