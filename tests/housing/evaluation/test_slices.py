"""Slices of rows against small cases counted by hand."""

import numpy as np
import pytest

from housing.core.errors import ConfigError
from housing.data.table import Table
from housing.evaluation.slices import (
    SliceMask,
    SliceSettings,
    make_slices,
    most_correlated_column,
    quintiles,
    score_slices,
    slice_columns,
)
from housing.schema.column import Column
from housing.schema.table_schema import Schema


def make_table(target: list[float], maximum: float | None = None, **columns: list[float]) -> Table:
    """Return a table of numeric columns; `north` and `east` are coordinates."""
    roles = {"north": "latitude", "east": "longitude"}
    features = (Column(name, "float", roles.get(name, "feature")) for name in columns)
    schema = Schema("small", (*features, Column("price", "float", "target", max=maximum)))
    matrix = np.column_stack([np.array(values, dtype=np.float64) for values in columns.values()])
    return Table(schema, matrix, np.array(target, dtype=np.float64), np.array(target, dtype=object), "none")


def rows_by_slice(table: Table, settings: SliceSettings) -> dict[str, list[int]]:
    """Return the row numbers of each slice by its kind and name."""
    slices = make_slices(table, np.arange(len(table)), settings)
    return {f"{slice_.kind} {slice_.name}": np.flatnonzero(slice_.mask).tolist() for slice_ in slices}


def test_score_compares_a_slice_with_all_rows() -> None:
    mask = np.array([True, True, False, False])
    predicted, actual = np.array([1.0, 5.0, 2.0, 2.0]), np.array([0.0, 2.0, 2.0, 2.0])
    (score,) = score_slices([SliceMask("kind", "name", mask)], predicted, actual, None)
    assert (score.rows, score.mean_error) == (2, 2.0)
    assert score.rmse == pytest.approx(np.sqrt(5.0))
    assert score.ratio == pytest.approx(np.sqrt(5.0) / np.sqrt(2.5))


def test_quintiles_keep_equal_values_together_and_name_missing_values() -> None:
    parts = dict(quintiles(np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10, np.nan])))
    assert list(parts) == ["1 to 2", "3 to 4", "5 to 6", "7 to 8", "9 to 10", "missing"]
    assert [mask.sum() for mask in parts.values()] == [2, 2, 2, 2, 2, 1]
    assert list(dict(quintiles(np.array([0.0, 0, 0, 0, 0, 0, 0, 0, 0, 7])))) == ["0 to 0", "7 to 7"]
    assert len(dict(quintiles(np.ones(9)))) == len(dict(quintiles(np.full(3, np.nan)))) == 1


def test_regions_follow_the_nearest_landmark_or_the_quadrant_of_the_map() -> None:
    table = make_table([1, 2, 3, 4], north=[10, 10, 20, 20], east=[10, 20, 10, 20])
    landmarks = rows_by_slice(table, SliceSettings(("north",), {"old_town": "10 10", "harbour": "20 20"}))
    assert landmarks["region old town"][0] == 0 and landmarks["region harbour"][-1] == 3
    quadrants = {f"region {name}": [row] for row, name in enumerate(("south-west", "south-east", "north-west", "north-east"))}
    assert quadrants.items() <= rows_by_slice(table, SliceSettings(("north",))).items()
    without_coordinates = rows_by_slice(make_table([1, 2], area=[1, 2]), SliceSettings())
    assert not any(name.startswith("region") for name in without_coordinates)


def test_capped_rows_have_the_maximum_and_a_constant_column_makes_no_slice() -> None:
    table = make_table([1, 2, 9, 9], maximum=9.0, area=[5, 5, 5, 5])
    slices = rows_by_slice(table, SliceSettings())
    assert slices.pop("capped at 9") == [2, 3]
    assert {name.split()[0] for name in slices} == {"price"}


def test_default_column_is_the_one_most_correlated_with_the_target() -> None:
    random = np.random.default_rng(0)
    area = random.uniform(1, 2, 200)
    noise = np.where(random.random(200) < 0.5, np.nan, random.random(200))
    table = make_table(list(np.exp(5 * area)), noise=list(noise), age=[3.0] * 200, area=list(-area))
    assert most_correlated_column(table) == "area"
    assert slice_columns(table, SliceSettings()) == ["area"]
    assert slice_columns(table, SliceSettings(("age", "noise"))) == ["age", "noise"]
    with pytest.raises(ConfigError, match="size"):
        make_slices(table, np.arange(200), SliceSettings(("size",)))


def test_settings_come_from_the_config_of_the_table() -> None:
    data = {"slice_columns": ["area"], "landmarks": {"points": {"harbour": "20 20"}}}
    assert SliceSettings.from_config(data) == SliceSettings(("area",), {"harbour": "20 20"})
    assert SliceSettings.from_config({}) == SliceSettings()
    with pytest.raises(ConfigError, match=r"data\.slice_columns is empty"):
        SliceSettings.from_config({"slice_columns": []})


def test_category_is_sliced_by_its_levels(rentals: Table) -> None:
    slices = make_slices(rentals, np.arange(len(rentals)), SliceSettings(("quarter", "built")))
    assert [slice_.name for slice_ in slices if slice_.kind == "quarter"] == ["old town", "harbour", "hills"]
    assert [slice_.name for slice_ in slices if slice_.kind == "built"][-1] == "missing"
