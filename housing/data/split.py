"""Splits of a table into training, validation and test rows. Only the promotion gate scores the test rows."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from housing.core.config import instantiate
from housing.core.errors import ConfigError
from housing.data.table import Table
from housing.data.units import Units
from housing.schema.column import Matrix

Rows = NDArray[np.intp]


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
        """Whether rows keep their part when rows are added or targets are corrected."""
        return self.function in {f"{stable.__module__}.{stable.__qualname__}" for stable in (split_by_hash, split_by_location)}


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
    return _split_by_hash(table.keys, test, valid, salt)


def _split_by_hash(keys: Iterable[bytes], test: float, valid: float, salt: str) -> Split:
    _check_shares({"test": test, "valid": valid, "test + valid": test + valid})
    seed = salt.encode()
    digests = b"".join(hashlib.blake2b(key, digest_size=8, key=seed).digest() for key in keys)
    position = np.frombuffer(digests, dtype="<u8") / 2.0**64
    is_test, is_valid = position < test, (position >= test) & (position < test + valid)
    return Split(np.flatnonzero(~is_test & ~is_valid), np.flatnonzero(is_valid), np.flatnonzero(is_test))


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


def split_by_location(table: Table, test: float, valid: float, salt: str) -> Split:
    """Split by a salted hash of each row's coordinates, so that rows at the same location are in the same part."""
    coordinates = np.ascontiguousarray(_coordinates(table), dtype="<f8") + 0.0  # -0.0 and 0.0 are the same location
    return _split_by_hash([row.tobytes() for row in coordinates], test, valid, salt)


def spatial_block_split(table: Table, cell_degrees: float, test: float, valid: float, seed: int) -> Split:
    """Split by whole grid cells in random order. `test` and `valid` are shares of the cells.

    Cells are sorted by latitude, then longitude, and permuted by `numpy.random.RandomState(seed)`. The first cells are test
    cells, the next are validation cells.
    """
    _check_shares({"test": test, "valid": valid, "test + valid": test + valid})
    cell_of_row = grid_cells(table, cell_degrees)
    random = np.random.RandomState(seed)  # pylint: disable=no-member  # it exists, but pylint cannot see it
    cells = random.permutation(cell_of_row.max() + 1)
    bounds = (int(test * len(cells)), int((test + valid) * len(cells)))
    test_rows, valid_rows, train_rows = (np.flatnonzero(np.isin(cell_of_row, part)) for part in np.split(cells, bounds))
    return Split(train_rows, valid_rows, test_rows)


def locations(table: Table) -> Rows:
    """Return a group number for each row, equal for rows with equal coordinates."""
    return _group_ids(_coordinates(table))


def grid_cells(table: Table, cell_degrees: float) -> Rows:
    """Return a group number for each row, equal for rows in the same square cell of the map with sides of `cell_degrees`."""
    if not cell_degrees > 0:
        raise ConfigError(f"cell_degrees must be above 0 (got {cell_degrees})")
    return _group_ids(np.floor(_coordinates(table) / cell_degrees))


def _group_ids(keys: Matrix) -> Rows:
    return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)


def _coordinates(table: Table) -> Matrix:
    """Return latitude and longitude of each row, shape (rows, 2)."""
    coordinates = table.schema.coordinates()
    if coordinates is None:
        raise ConfigError(
            f"Table {table.schema.name} has no columns with the roles latitude and longitude."
            " Declare the roles in the table's config."
        )
    return table.matrix[:, coordinates]


def _check_shares(shares: Mapping[str, float]) -> None:
    for name, share in shares.items():
        if not 0.0 < share < 1.0:
            raise ConfigError(f"split: the share {name} must be above 0 and below 1 (got {share:g})")
