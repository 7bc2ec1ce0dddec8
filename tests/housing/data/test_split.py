"""The splits: shares, disjointness, and that a row of `hash` never moves."""

import dataclasses

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from housing.core.errors import ConfigError
from housing.data.split import (
    Rows,
    Split,
    grid_cells,
    locations,
    random_split,
    spatial_block_split,
    split,
    split_by_hash,
    split_by_location,
)
from housing.data.table import Table
from tests.support.tables import config


def parts_of(table: Table, parts: Split) -> dict[bytes, str]:
    """Which part each row's key is in."""
    named = {"train": parts.train, "valid": parts.valid, "test": parts.test}
    return {table.key[row].tobytes(): name for name, rows in named.items() for row in rows}


def rows_of(table: Table, rows: list[int] | range) -> Table:
    """The table with these rows alone."""
    return dataclasses.replace(table, matrix=table.matrix[rows], target=table.target[rows], key=table.key[rows])


@pytest.mark.parametrize("name", ["hash", "random", "grouped", "blocks"])
def test_parts_are_disjoint_cover_all_rows_and_have_their_shares(towns: Table, name: str) -> None:
    parts = split(towns, config("train", f"split={name}").split)
    assert sorted(np.concatenate([parts.train, parts.valid, parts.test])) == list(range(len(towns)))
    assert len(parts.test) / len(towns) == pytest.approx(0.2, abs=0.07)
    assert len(parts.valid) / len(towns) == pytest.approx(0.16, abs=0.07)


def test_a_row_never_moves_when_rows_come_go_or_are_reordered(rentals: Table) -> None:
    whole = parts_of(rentals, split_by_hash(rentals, 0.2, 0.16, "salt"))
    half = rows_of(rentals, range(299, -1, -1))
    for key, part in parts_of(half, split_by_hash(half, 0.2, 0.16, "salt")).items():
        assert whole[key] == part


def test_a_row_never_moves_when_its_target_is_corrected(rentals: Table) -> None:
    corrected = dataclasses.replace(rentals, target=rentals.target + 1.0)
    assert split_by_hash(corrected, 0.2, 0.16, "s").fingerprint() == split_by_hash(rentals, 0.2, 0.16, "s").fingerprint()


def test_rows_with_one_key_are_in_one_part(rentals: Table) -> None:
    twice = rows_of(rentals, [row for row in range(len(rentals)) for _ in range(2)])
    for part in dataclasses.astuple(split_by_hash(twice, 0.2, 0.16, "s")):
        assert all(np.isin(part ^ 1, part))


def test_another_salt_is_another_split(rentals: Table) -> None:
    assert split_by_hash(rentals, 0.2, 0.16, "a").fingerprint() != split_by_hash(rentals, 0.2, 0.16, "b").fingerprint()


def test_chance_is_scikit_learns_split_done_twice(rentals: Table) -> None:
    rest, test = train_test_split(np.arange(len(rentals)), test_size=0.2, random_state=42)
    train, valid = train_test_split(rest, test_size=0.2, random_state=7)
    parts = random_split(rentals, 0.2, 0.2, [42, 7])
    for got, expected in ((parts.train, train), (parts.valid, valid), (parts.test, test)):
        np.testing.assert_array_equal(got, expected)


def test_no_place_is_in_two_parts(towns: Table) -> None:
    place_of = locations(towns)
    assert len(set(place_of)) < len(towns)
    assert not shared(place_of, split_by_location(towns, 0.2, 0.16, "housing"))
    assert shared(place_of, split_by_hash(towns, 0.2, 0.16, "housing"))  # by their keys they would be torn apart


def shared(group_of: Rows, parts: Split) -> set[int]:
    """Groups that are in more than one part."""
    train, valid, test = (set(group_of[rows].tolist()) for rows in (parts.train, parts.valid, parts.test))
    return train & valid | train & test | valid & test


def test_a_place_never_moves_when_rows_come_or_their_other_columns_change(towns: Table) -> None:
    whole = split_by_location(towns, 0.2, 0.16, "s")
    matrix = towns.matrix.copy()
    matrix[:, 2] += 1
    other = dataclasses.replace(towns, matrix=matrix, key=matrix)
    assert split_by_location(other, 0.2, 0.16, "s").fingerprint() == whole.fingerprint()
    half = split_by_location(rows_of(towns, range(300)), 0.2, 0.16, "s")
    np.testing.assert_array_equal(half.test, whole.test[whole.test < 300])


@pytest.mark.parametrize("draw", range(5))
def test_blocks_are_the_cells_of_the_benchmark_in_its_order(towns: Table, draw: int) -> None:
    """Worked out as docs/benchmarks.md tells it, without our own code."""
    cell = [tuple(each) for each in np.floor(2 * towns.matrix[:, :2]).astype(int)]
    drawn = np.random.RandomState(draw).permutation(np.unique(cell, axis=0)).tolist()  # pylint: disable=no-member
    ends = int(0.2 * len(drawn)), int(0.36 * len(drawn))
    expected = {"test": drawn[: ends[0]], "valid": drawn[ends[0] : ends[1]], "train": drawn[ends[1] :]}
    parts = split(towns, config("train", "split=blocks", f"split.seed={draw}").split)
    for name, allowed in expected.items():
        rows = [row for row, each in enumerate(cell) if list(each) in allowed]
        np.testing.assert_array_equal(getattr(parts, name), rows)
        assert rows
    assert not shared(grid_cells(towns, 0.5), parts)


def test_cells_are_as_wide_as_asked_for_also_south_and_west_of_nothing(towns: Table) -> None:
    matrix = towns.matrix[:6].copy()
    matrix[:, 0], matrix[:, 1] = [-0.1, 0.1, 0.4, 0.6, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1, -0.1, 0.6]
    few = dataclasses.replace(towns, matrix=matrix)
    assert len(set(grid_cells(few, 0.5))) == 5 and grid_cells(few, 0.5)[1] == grid_cells(few, 0.5)[2]
    assert len(set(grid_cells(few, 1.0))) == 3


@pytest.mark.parametrize("name", ["grouped", "blocks"])
def test_a_table_without_coordinates_cannot_be_split_by_them(rentals: Table, name: str) -> None:
    with pytest.raises(ConfigError, match="table rentals has no columns with the roles latitude and longitude"):
        split(rentals, config("train", f"split={name}").split)


def test_blocks_so_large_that_a_part_stays_empty_are_refused(towns: Table) -> None:
    with pytest.raises(
        ConfigError, match="the split leaves no rows for valid: the table has 600 rows, split is .*'cell_degrees': 50"
    ):
        split(towns, config("train", "split=blocks", "split.cell_degrees=50").split)
    with pytest.raises(ConfigError, match="cell_degrees is -1; allowed: above 0"):
        spatial_block_split(towns, -1, 0.2, 0.16, 0)


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
        random_split(rentals, 0.2, 0.2, [1])
