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
    group_units,
    random_split,
    spatial_block_split,
    split_by_group,
    split_by_hash,
    split_by_time,
    split_table,
    stratified_split,
    time_units,
)
from housing.data.table import Table, load
from housing.schema.table_schema import Schema
from tests.support.tables import config, orders_frame

# Fingerprints of splits of 0.2.0: stored runs are compared with models on the same rows, so these splits must never change.
RENTALS_SPLIT = "a21f323c449928046f30ebbc1563a53f5a0a066acd96c451a460545c4b2b4d3e"
TOWNS_STRATIFIED = "1e3a1ee774e2e6ca1bd077bf84f9968e51fdc1f9ccee202a56b786c3cbabb9c1"
TOWNS_GROUPED = "22be06af01d5725095865bbb6bde5dd65dae559c653269b9ef6dc5b5cd69d3ac"


def settings(name: str, **arguments: Any) -> SplitSettings:
    """Return the settings of a file of conf/split, with other arguments."""
    declared: dict[str, Any] = yaml.safe_load((Path(CONF) / "split" / f"{name}.yaml").read_text(encoding="utf-8"))
    return SplitSettings.create(declared.pop("_target_"), **declared | arguments)


def part_by_key(table: Table, parts: Split) -> dict[bytes, str]:
    """Return the part of each row's key."""
    named = {"train": parts.train, "valid": parts.valid, "test": parts.test}
    keys = table.keys
    return {keys[row]: name for name, rows in named.items() for row in rows}


def select_rows(table: Table, rows: list[int] | range) -> Table:
    """Return a table with some of the rows."""
    return table.take(rows)


@pytest.mark.parametrize("name", ["hash", "random", "grouped", "blocks", "stratified"])
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


def test_splits_by_hash_stay_as_they_were_made_before(rentals: Table, towns: Table) -> None:
    assert split_by_hash(rentals, 0.2, 0.16, "housing").fingerprint() == RENTALS_SPLIT
    assert stratified_split(towns, 0.2, 0.16, "housing", 5).fingerprint() == TOWNS_STRATIFIED
    assert split_by_group(towns, None, 0.2, 0.16, "housing").fingerprint() == TOWNS_GROUPED


def test_another_salt_makes_another_split(rentals: Table) -> None:
    assert split_by_hash(rentals, 0.2, 0.16, "a").fingerprint() != split_by_hash(rentals, 0.2, 0.16, "b").fingerprint()


def test_the_random_split_is_train_test_split_applied_twice(rentals: Table) -> None:
    rest, test = train_test_split(np.arange(len(rentals)), test_size=0.2, random_state=42)
    train, valid = train_test_split(rest, test_size=0.2, random_state=7)
    parts = random_split(rentals, 0.2, 0.2, [42, 7])
    for rows, expected in ((parts.train, train), (parts.valid, valid), (parts.test, test)):
        np.testing.assert_array_equal(rows, expected)


def test_no_location_is_in_two_parts(towns: Table) -> None:
    location_of_row = group_units(towns, None).of_row
    assert len(set(location_of_row)) < len(towns)
    assert not shared_groups(location_of_row, split_by_group(towns, None, 0.2, 0.16, "housing"))
    assert shared_groups(location_of_row, split_by_hash(towns, 0.2, 0.16, "housing"))  # a hash of the whole key separates them


def shared_groups(group_of: Rows, parts: Split) -> set[int]:
    """Return the groups that are in more than one part."""
    train, valid, test = (set(group_of[rows].tolist()) for rows in (parts.train, parts.valid, parts.test))
    return train & valid | train & test | valid & test


def test_a_location_keeps_its_part_when_rows_are_added_or_other_columns_change(towns: Table) -> None:
    expected = split_by_group(towns, None, 0.2, 0.16, "s")
    matrix = towns.matrix.copy()
    matrix[:, 2] += 1
    other = dataclasses.replace(towns, matrix=matrix, stored_keys=towns.keys[::-1])
    assert split_by_group(other, None, 0.2, 0.16, "s").fingerprint() == expected.fingerprint()
    half = split_by_group(select_rows(towns, range(300)), None, 0.2, 0.16, "s")
    np.testing.assert_array_equal(half.test, expected.test[expected.test < 300])


@pytest.mark.parametrize("seed", range(5))
def test_the_block_split_is_the_one_that_the_benchmarks_document(towns: Table, seed: int) -> None:
    """Compute the split independently, as docs/explanation/benchmarks.md describes it."""
    cell_of_row = [tuple(cell) for cell in np.floor(2 * towns.matrix[:, :2]).astype(int)]
    order = np.random.RandomState(seed).permutation(np.unique(cell_of_row, axis=0)).tolist()  # pylint: disable=no-member
    bounds = int(0.2 * len(order)), int(0.36 * len(order))
    expected = {"test": order[: bounds[0]], "valid": order[bounds[0] : bounds[1]], "train": order[bounds[1] :]}
    parts = split_table(towns, settings("blocks", seed=seed))
    for name, expected_cells in expected.items():
        rows = [row for row, cell in enumerate(cell_of_row) if list(cell) in expected_cells]
        np.testing.assert_array_equal(getattr(parts, name), rows)
        assert rows
    assert not shared_groups(grid_cells(towns, 0.5).of_row, parts)


def test_grid_cells_have_their_size_also_at_negative_coordinates(towns: Table) -> None:
    matrix = towns.matrix[:6].copy()
    matrix[:, 0], matrix[:, 1] = [-0.1, 0.1, 0.4, 0.6, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1, -0.1, 0.6]
    corners = dataclasses.replace(towns, matrix=matrix)
    small = grid_cells(corners, 0.5)
    assert small.count() == 5 and small.of_row[1] == small.of_row[2]
    assert grid_cells(corners, 1.0).count() == 3


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
    assert {name: settings(name).is_stable for name in ("hash", "grouped", "stratified", "time", "random", "blocks")} == {
        "hash": True,
        "grouped": True,
        "stratified": False,
        "time": False,
        "random": False,
        "blocks": False,
    }


@pytest.fixture(name="orders", scope="module")
def orders_fixture(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """Return 1,000 orders of 100 customers in 100 weeks, some without a customer, and none without a price."""
    path = tmp_path_factory.mktemp("orders") / "orders.csv"
    frame = orders_frame(1000).assign(customer=[f"c{row * 7 % 100}" if row % 50 else "" for row in range(1000)])
    frame["price"] = frame["price"].fillna(9.0)
    frame.sample(frac=1.0, random_state=0).to_csv(path, index=False)
    return load(config("train", "data=orders", f"data.path={path}", "+data.columns.customer.nullable=true").data)


def test_training_rows_are_older_than_validation_and_test_rows_by_more_than_the_gap(orders: Table) -> None:
    parts = split_table(orders, settings("time"))
    weeks = orders.times
    assert weeks is not None and parts.units is not None and parts.units.name == "values of week"
    assert weeks[parts.train].max() + 1 == weeks[parts.valid].min() and weeks[parts.valid].max() + 1 == weeks[parts.test].min()
    assert (len(parts.train), len(parts.valid), len(parts.test)) == (640, 160, 200)
    with_gap = split_table(orders, settings("time", gap=5))
    assert weeks[with_gap.train].max() + 6 == weeks[with_gap.valid].min()
    assert weeks[with_gap.valid].max() + 6 == weeks[with_gap.test].min()
    assert (len(with_gap.train), len(with_gap.valid), len(with_gap.test)) == (540, 160, 200)


def test_rows_of_equal_time_are_in_one_part(orders: Table) -> None:
    parts = split_table(orders, settings("time", test=0.205, valid=0.161))
    assert parts.units is not None and parts.units.count() == 100
    assert (len(parts.valid), len(parts.test)) == (170, 210)
    assert not shared_groups(parts.units.of_row, parts)


def test_a_date_is_split_by_whole_days_and_may_stay_a_feature(orders: Table) -> None:
    placed = orders.schema.index("placed")
    parts = split_table(orders, settings("time", by="placed", gap=30))
    days = np.floor(orders.matrix[:, placed] / 86_400)
    assert days[parts.train].max() + 30 < days[parts.valid].min() and days[parts.valid].max() + 30 < days[parts.test].min()
    assert parts.units is not None and parts.units.count() == len(set(days)) < len(orders)
    assert set(days[parts.test]) & set(days) == set(days[days >= days[parts.test].min()])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"by": "colour"}, "split.by must be a number or a date for a split by time .got colour: category"),
        ({"by": "age"}, "Column age has no time in [0-9]+ of 1,000 rows"),
        ({"by": "nobody"}, "no feature column nobody"),
        ({"gap": -1}, "gap must be a finite number, 0 or above .got -1"),
        ({"gap": 90}, "leaves no (train|valid) rows"),
    ],
)
def test_impossible_splits_by_time_are_refused(orders: Table, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split_table(orders, settings("time", **arguments))


def test_a_table_without_a_time_names_the_line_to_add(rentals: Table) -> None:
    with pytest.raises(ConfigError, match="Add to its config(?s:.*)COLUMN: {type: date, role: time}"):
        split_by_time(rentals, None, 0, 0.2, 0.16)
    assert time_units(rentals, "area").count() > 100


def test_customers_are_in_one_part_and_stay_there_when_rows_are_added(orders: Table) -> None:
    parts = split_table(orders, settings("grouped"))
    assert parts.units is not None and parts.units.name == "values of customer"
    assert parts.units.count() == len(set(orders.identifiers["customer"]) - {None}) + 20  # 20 rows have no customer
    assert not shared_groups(parts.units.of_row, parts)
    half = orders.take(range(500))
    expected = part_by_key(orders, parts)
    assert all(expected[key] == part for key, part in part_by_key(half, split_by_group(half, None, 0.2, 0.16, "housing")).items())


@pytest.mark.parametrize(("by", "count"), [("town", 60), ("grade", 3), ("order", 1000), ("customer", 118)])
def test_any_identifier_or_feature_can_group(orders: Table, by: str, count: int) -> None:
    assert group_units(orders, by).count() == count


def test_a_group_of_a_learned_level_is_its_name_not_its_code(orders: Table) -> None:
    renumbered = orders.encoded_as(orders.schema.with_levels({"town": {f"town {number}": 1 for number in range(60)}}))
    first, second = (split_by_group(table, "town", 0.2, 0.16, "s") for table in (orders, renumbered))
    assert first.fingerprint() == second.fingerprint()


def test_several_groups_need_a_choice(orders: Table) -> None:
    schema = Schema.from_dict(
        {"name": "t", "columns": {**orders.schema.to_dict()["columns"], "note": {"type": "text", "role": "group"}}}
    )
    with pytest.raises(ConfigError, match="several columns with the role group: customer, note. Choose one: split.by=customer"):
        group_units(dataclasses.replace(orders, schema=schema), None)


def test_a_stratified_split_has_exact_shares_in_each_bin_and_few_rows_move(rentals: Table) -> None:
    parts = split_table(rentals, settings("stratified"))
    tenth = np.searchsorted(np.quantile(rentals.target, np.arange(1, 10) / 10), rentals.target)
    for rows, share in ((parts.test, 0.2), (parts.valid, 0.16)):
        np.testing.assert_allclose(np.bincount(tenth[rows], minlength=10), share * 60, atol=1)
    fewer = select_rows(rentals, range(590))
    before, after = (part_by_key(table, split_table(table, settings("stratified"))) for table in (fewer, rentals))
    assert sum(before[key] != after[key] for key in before) < 0.05 * len(before)
    twice = select_rows(rentals, [row for row in range(len(rentals)) for _ in range(2)])
    noisy = dataclasses.replace(twice, target=np.where(np.arange(len(twice)) % 2, twice.target, twice.target * 2))
    parts = stratified_split(noisy, 0.2, 0.16, "s", 10)
    assert not shared_groups(np.arange(len(twice)) // 2, parts)
