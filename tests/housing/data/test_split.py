"""Splits: shares, disjoint parts, groups that stay together, and stability when the table changes."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf
from sklearn.model_selection import train_test_split

from housing.core.config import CONF
from housing.core.errors import ConfigError
from housing.data.split import (
    Rows,
    Split,
    SplitSettings,
    grid_cells,
    locations,
    random_split,
    spatial_block_split,
    split_by_hash,
    split_by_location,
    split_table,
)
from housing.data.table import Table


def settings(name: str, **arguments: Any) -> SplitSettings:
    """Return the settings of a file of conf/split, with other arguments."""
    declared: dict[str, Any] = yaml.safe_load((Path(CONF) / "split" / f"{name}.yaml").read_text(encoding="utf-8"))
    return SplitSettings.create(declared.pop("_target_"), **declared | arguments)


def part_by_key(table: Table, parts: Split) -> dict[bytes, str]:
    """Return the part of each row's key."""
    named = {"train": parts.train, "valid": parts.valid, "test": parts.test}
    return {table.keys[row]: name for name, rows in named.items() for row in rows}


def select_rows(table: Table, rows: list[int] | range) -> Table:
    """Return a table with some of the rows."""
    return dataclasses.replace(table, matrix=table.matrix[rows], target=table.target[rows], keys=table.keys[rows])


@pytest.mark.parametrize("name", ["hash", "random", "grouped", "blocks"])
def test_parts_are_disjoint_cover_all_rows_and_have_their_shares(towns: Table, name: str) -> None:
    parts = split_table(towns, settings(name))
    assert sorted(np.concatenate([parts.train, parts.valid, parts.test])) == list(range(len(towns)))
    assert len(parts.test) / len(towns) == pytest.approx(0.2, abs=0.07)
    assert len(parts.valid) / len(towns) == pytest.approx(0.16, abs=0.07)


def test_a_row_keeps_its_part_when_rows_are_added_removed_or_reordered(rentals: Table) -> None:
    expected = part_by_key(rentals, split_by_hash(rentals, 0.2, 0.16, "salt"))
    half = select_rows(rentals, range(299, -1, -1))
    for key, part in part_by_key(half, split_by_hash(half, 0.2, 0.16, "salt")).items():
        assert expected[key] == part


def test_a_row_keeps_its_part_when_its_target_is_corrected(rentals: Table) -> None:
    corrected = dataclasses.replace(rentals, target=rentals.target + 1.0)
    assert split_by_hash(corrected, 0.2, 0.16, "s").fingerprint() == split_by_hash(rentals, 0.2, 0.16, "s").fingerprint()


def test_rows_with_the_same_key_are_in_the_same_part(rentals: Table) -> None:
    twice = select_rows(rentals, [row for row in range(len(rentals)) for _ in range(2)])
    parts = split_by_hash(twice, 0.2, 0.16, "s")
    for part in (parts.train, parts.valid, parts.test):
        assert all(np.isin(part ^ 1, part))


def test_another_salt_makes_another_split(rentals: Table) -> None:
    assert split_by_hash(rentals, 0.2, 0.16, "a").fingerprint() != split_by_hash(rentals, 0.2, 0.16, "b").fingerprint()


def test_the_random_split_is_train_test_split_applied_twice(rentals: Table) -> None:
    rest, test = train_test_split(np.arange(len(rentals)), test_size=0.2, random_state=42)
    train, valid = train_test_split(rest, test_size=0.2, random_state=7)
    parts = random_split(rentals, 0.2, 0.2, [42, 7])
    for rows, expected in ((parts.train, train), (parts.valid, valid), (parts.test, test)):
        np.testing.assert_array_equal(rows, expected)


def test_no_location_is_in_two_parts(towns: Table) -> None:
    location_of_row = locations(towns)
    assert len(set(location_of_row)) < len(towns)
    assert not shared_groups(location_of_row, split_by_location(towns, 0.2, 0.16, "housing"))
    assert shared_groups(location_of_row, split_by_hash(towns, 0.2, 0.16, "housing"))  # a hash of the whole key separates them


def shared_groups(group_of: Rows, parts: Split) -> set[int]:
    """Return the groups that are in more than one part."""
    train, valid, test = (set(group_of[rows].tolist()) for rows in (parts.train, parts.valid, parts.test))
    return train & valid | train & test | valid & test


def test_a_location_keeps_its_part_when_rows_are_added_or_other_columns_change(towns: Table) -> None:
    expected = split_by_location(towns, 0.2, 0.16, "s")
    matrix = towns.matrix.copy()
    matrix[:, 2] += 1
    other = dataclasses.replace(towns, matrix=matrix, keys=towns.keys[::-1])
    assert split_by_location(other, 0.2, 0.16, "s").fingerprint() == expected.fingerprint()
    half = split_by_location(select_rows(towns, range(300)), 0.2, 0.16, "s")
    np.testing.assert_array_equal(half.test, expected.test[expected.test < 300])


@pytest.mark.parametrize("seed", range(5))
def test_the_block_split_is_the_one_that_the_benchmarks_document(towns: Table, seed: int) -> None:
    """Compute the split independently, as docs/explanation/benchmarks.md describes it."""
    cells = [tuple(cell) for cell in np.floor(2 * towns.matrix[:, :2]).astype(int)]
    order = np.random.RandomState(seed).permutation(np.unique(cells, axis=0)).tolist()  # pylint: disable=no-member
    bounds = int(0.2 * len(order)), int(0.36 * len(order))
    expected = {"test": order[: bounds[0]], "valid": order[bounds[0] : bounds[1]], "train": order[bounds[1] :]}
    parts = split_table(towns, settings("blocks", seed=seed))
    for name, expected_cells in expected.items():
        rows = [row for row, cell in enumerate(cells) if list(cell) in expected_cells]
        np.testing.assert_array_equal(getattr(parts, name), rows)
        assert rows
    assert not shared_groups(grid_cells(towns, 0.5), parts)


def test_grid_cells_have_their_size_also_at_negative_coordinates(towns: Table) -> None:
    matrix = towns.matrix[:6].copy()
    matrix[:, 0], matrix[:, 1] = [-0.1, 0.1, 0.4, 0.6, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1, -0.1, 0.6]
    corners = dataclasses.replace(towns, matrix=matrix)
    assert len(set(grid_cells(corners, 0.5))) == 5 and grid_cells(corners, 0.5)[1] == grid_cells(corners, 0.5)[2]
    assert len(set(grid_cells(corners, 1.0))) == 3


@pytest.mark.parametrize("name", ["grouped", "blocks"])
def test_a_spatial_split_needs_coordinates(rentals: Table, name: str) -> None:
    with pytest.raises(ConfigError, match="Table rentals has no columns with the roles latitude and longitude"):
        split_table(rentals, settings(name))


def test_cells_that_leave_a_part_empty_are_refused(towns: Table) -> None:
    with pytest.raises(ConfigError, match="leaves no valid rows: spatial_block_split of 600 rows with .*'cell_degrees': 50"):
        split_table(towns, settings("blocks", cell_degrees=50))
    with pytest.raises(ConfigError, match="cell_degrees must be above 0 .got -1"):
        spatial_block_split(towns, -1, 0.2, 0.16, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test": 0}, "the share test must be above 0 and below 1 .got 0"),
        ({"valid": 0.9}, r"the share test . valid must be .*got 1.1"),
        ({"test": 1e-9}, "leaves no test rows: split_by_hash of 600 rows"),
    ],
)
def test_shares_out_of_range_are_refused(rentals: Table, arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split_table(rentals, settings("hash", **arguments))


def test_the_random_split_needs_two_seeds(rentals: Table) -> None:
    with pytest.raises(ConfigError, match=r"split.seeds must be two whole numbers.*got \[1\]"):
        random_split(rentals, 0.2, 0.2, [1])


def test_settings_come_from_the_config_and_know_which_splits_are_stable() -> None:
    cfg = OmegaConf.create({"_target_": "housing.data.split.split_by_hash", "test": 0.2, "valid": 0.16, "salt": "housing"})
    assert SplitSettings.from_config(cfg) == settings("hash")
    assert {name: settings(name).is_stable for name in ("hash", "grouped", "random", "blocks")} == {
        "hash": True,
        "grouped": True,
        "random": False,
        "blocks": False,
    }
