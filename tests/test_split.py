"""The splits: shares, disjointness, and that a row of `hash` never moves."""

import dataclasses

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from conftest import config
from housing.data import Table
from housing.errors import ConfigError
from housing.split import Split, by_chance, by_hash, split


def parts_of(table: Table, parts: Split) -> dict[bytes, str]:
    """Which part each row's key is in."""
    named = {"train": parts.train, "valid": parts.valid, "test": parts.test}
    return {table.key[row].tobytes(): name for name, rows in named.items() for row in rows}


def rows_of(table: Table, rows: list[int] | range) -> Table:
    """The table with these rows alone."""
    return dataclasses.replace(table, matrix=table.matrix[rows], target=table.target[rows], key=table.key[rows])


@pytest.mark.parametrize("name", ["hash", "random"])
def test_parts_are_disjoint_cover_all_rows_and_have_their_shares(rentals: Table, name: str) -> None:
    parts = split(rentals, config("train", f"split={name}").split)
    assert sorted(np.concatenate([parts.train, parts.valid, parts.test])) == list(range(len(rentals)))
    assert len(parts.test) / len(rentals) == pytest.approx(0.2, abs=0.05)
    assert len(parts.valid) / len(rentals) == pytest.approx(0.16, abs=0.05)


def test_a_row_never_moves_when_rows_come_go_or_are_reordered(rentals: Table) -> None:
    whole = parts_of(rentals, by_hash(rentals, 0.2, 0.16, "salt"))
    half = rows_of(rentals, range(299, -1, -1))
    for key, part in parts_of(half, by_hash(half, 0.2, 0.16, "salt")).items():
        assert whole[key] == part


def test_a_row_never_moves_when_its_target_is_corrected(rentals: Table) -> None:
    corrected = dataclasses.replace(rentals, target=rentals.target + 1.0)
    assert by_hash(corrected, 0.2, 0.16, "s").fingerprint() == by_hash(rentals, 0.2, 0.16, "s").fingerprint()


def test_rows_with_one_key_are_in_one_part(rentals: Table) -> None:
    twice = rows_of(rentals, [row for row in range(len(rentals)) for _ in range(2)])
    for part in dataclasses.astuple(by_hash(twice, 0.2, 0.16, "s")):
        assert all(np.isin(part ^ 1, part))


def test_another_salt_is_another_split(rentals: Table) -> None:
    assert by_hash(rentals, 0.2, 0.16, "a").fingerprint() != by_hash(rentals, 0.2, 0.16, "b").fingerprint()


def test_chance_is_scikit_learns_split_done_twice(rentals: Table) -> None:
    rest, test = train_test_split(np.arange(len(rentals)), test_size=0.2, random_state=42)
    train, valid = train_test_split(rest, test_size=0.2, random_state=7)
    parts = by_chance(rentals, 0.2, 0.2, [42, 7])
    for got, expected in ((parts.train, train), (parts.valid, valid), (parts.test, test)):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("split.test=0", "the share test is 0; allowed: above 0 and below 1"),
        ("split.valid=0.9", "the share both is 1.1"),
        ("split.test=1e-9", "the split leaves no rows for test: the table has 600 rows"),
    ],
)
def test_a_split_that_cannot_be_is_refused(rentals: Table, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split(rentals, config("train", override).split)


def test_seeds_are_two(rentals: Table) -> None:
    with pytest.raises(ConfigError, match=r"split.seeds is \[1\]; allowed: two whole numbers"):
        by_chance(rentals, 0.2, 0.2, [1])
