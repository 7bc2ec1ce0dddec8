"""Which rows are for training, validation and test. Test rows are scored by the gate only."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from housing.core.config import instantiate
from housing.core.errors import ConfigError
from housing.data.table import Table
from housing.schema.column import Matrix

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Split:
    """Row numbers of the three parts."""

    train: Rows
    valid: Rows
    test: Rows

    def fingerprint(self) -> str:
        """Give a hash that is equal where all three parts are."""
        digest = hashlib.sha256()
        for part in (self.train, self.valid, self.test):
            digest.update(np.ascontiguousarray(part, dtype="<i8").tobytes() + b"|")
        return digest.hexdigest()


def split(table: Table, cfg: DictConfig) -> Split:
    """Split a table as its config says. Raises ConfigError where a part stays empty."""
    return _split(table, json.dumps(OmegaConf.to_container(cfg, resolve=True)))


@lru_cache(maxsize=4)  # the jobs of a sweep share one process and one split
def _split(table: Table, config_json: str) -> Split:
    cfg = OmegaConf.create(json.loads(config_json))
    parts: Split = instantiate(cfg, table)
    for name, rows in (("train", parts.train), ("valid", parts.valid), ("test", parts.test)):
        if rows.size == 0:
            raise ConfigError(f"the split leaves no rows for {name}: the table has {len(table)} rows, split is {dict(cfg)}")
    return parts


def split_by_hash(table: Table, test: float, valid: float, salt: str) -> Split:
    """Split by a salted hash of each row's key, so that a row never moves: not when rows are added, not when its target
    is corrected. `test` and `valid` are shares of all rows.
    """
    return _split_by_hash(table.key, test, valid, salt)


def _split_by_hash(keys: Matrix, test: float, valid: float, salt: str) -> Split:
    _check_shares(test=test, valid=valid, both=test + valid)
    keys = np.ascontiguousarray(keys, dtype="<f8") + 0.0  # -0.0 and 0.0 are one key
    seed = salt.encode()
    digests = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8, key=seed).digest() for row in keys)
    position = np.frombuffer(digests, dtype="<u8") / 2.0**64
    is_test, is_valid = position < test, (position >= test) & (position < test + valid)
    return Split(np.flatnonzero(~is_test & ~is_valid), np.flatnonzero(is_valid), np.flatnonzero(is_test))


def random_split(table: Table, test: float, valid: float, seeds: Sequence[int]) -> Split:
    """Split with scikit-learn's `train_test_split` twice: first the test rows with `seeds[0]`, then from the rest the
    validation rows with `seeds[1]`. `test` is a share of all rows, `valid` of the rest.
    """
    from sklearn.model_selection import train_test_split  # pylint: disable=import-outside-toplevel  # 3 s that few need

    _check_shares(test=test, valid=valid)
    if len(seeds) != 2 or not all(isinstance(seed, int) and 0 <= seed < 2**32 for seed in seeds):
        raise ConfigError(f"split.seeds is {list(seeds)}; allowed: two whole numbers, 0 or above")
    rest, test_rows = train_test_split(np.arange(len(table)), test_size=test, random_state=seeds[0])
    train, valid_rows = train_test_split(rest, test_size=valid, random_state=seeds[1])
    return Split(train, valid_rows, test_rows)


def split_by_location(table: Table, test: float, valid: float, salt: str) -> Split:
    """Split by a salted hash of each row's coordinates, so that rows at the same place are in one part."""
    return _split_by_hash(_coordinates(table), test, valid, salt)


def spatial_block_split(table: Table, cell_degrees: float, test: float, valid: float, seed: int) -> Split:
    """Split by whole cells of the map, in an order that is drawn by chance: the first `test` of them, the next `valid`.

    `test` and `valid` are shares of the cells. Cells are sorted by latitude, then longitude, and permuted by
    `numpy.random.RandomState(draw)`.
    """
    _check_shares(test=test, valid=valid, both=test + valid)
    cell_of = grid_cells(table, cell_degrees)
    random = np.random.RandomState(seed)  # pylint: disable=no-member  # which pylint cannot see
    order = random.permutation(cell_of.max() + 1)
    ends = (int(test * len(order)), int((test + valid) * len(order)))
    test_cells, valid_cells, train_cells = (np.isin(cell_of, part) for part in np.split(order, ends))
    return Split(np.flatnonzero(train_cells), np.flatnonzero(valid_cells), np.flatnonzero(test_cells))


def is_stable(cfg: DictConfig) -> bool:
    """Whether a row never moves in a split: not when others come, not when its target is corrected."""
    stable = [f"{one.__module__}.{one.__qualname__}" for one in (split_by_hash, split_by_location)]
    return cfg._target_ in stable  # pylint: disable=protected-access  # Hydra's name


def locations(table: Table) -> Rows:
    """Give a number for each row that is equal for rows at the same place."""
    return _group_ids(_coordinates(table))


def grid_cells(table: Table, cell_degrees: float) -> Rows:
    """Give a number for each row that is equal for rows in the same cell of the map, `degrees` wide and high."""
    if not cell_degrees > 0:
        raise ConfigError(f"cell_degrees is {cell_degrees}; allowed: above 0")
    return _group_ids(np.floor(_coordinates(table) / cell_degrees))


def _group_ids(keys: Matrix) -> Rows:
    return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)


def _coordinates(table: Table) -> Matrix:
    """Give latitude and longitude of each row. Raises ConfigError where the table has none."""
    coordinates = table.schema.coordinates()
    if coordinates is None:
        raise ConfigError(f"table {table.schema.name} has no columns with the roles latitude and longitude")
    return table.matrix[:, coordinates]


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0.0 < share < 1.0:
            raise ConfigError(f"split: the share {name} is {share}; allowed: above 0 and below 1")
