"""The feature blocks, each against numbers worked out by hand, and the encoding."""

from typing import Any

import numpy as np
import pytest

from housing.data import Table
from housing.errors import ConfigError
from housing.features import Features
from housing.schema import Schema

MAP = Schema.from_dict(
    {
        "name": "map",
        "columns": {
            "lat": {"type": "float", "role": "latitude"},
            "lon": {"type": "float", "role": "longitude"},
            "a": {"type": "float"},
            "b": {"type": "float"},
            "y": {"type": "float", "role": "target"},
        },
    }
)
ROWS = np.array([[10.0, 20.0, 6.0, 3.0], [10.0, 21.0, 1.0, 0.0]])
Y = np.array([1.0, 2.0])


def derived(block: dict[str, Any]) -> dict[str, list[float]]:
    """What one block adds to the rows, by name."""
    features = Features(MAP, [block], missing="keep")
    columns = features.fit_transform(ROWS, Y)
    assert features.names[:4] == ["lat", "lon", "a", "b"]
    return dict(zip(features.names[4:], columns[:, 4:].T.tolist(), strict=True))


def test_rotation_turns_the_axes() -> None:
    turned = derived({"block": "rotation", "degrees": [90]})
    assert turned == {"rotated_90_x": pytest.approx([10.0, 10.0]), "rotated_90_y": pytest.approx([-20.0, -21.0])}


def test_distance_is_in_km_to_points_and_lines() -> None:
    km = derived({"block": "distance", "points": {"here": "10 20", "north": "11 20"}, "lines": {"meridian": "0 20, 90 20"}})
    east = 111.2 * np.cos(np.radians(10.0))
    assert km["km_to_here"] == pytest.approx([0.0, east])
    assert km["km_to_north"] == pytest.approx([111.2, np.hypot(111.2, east)])
    assert km["km_to_nearest"] == pytest.approx([0.0, east])
    assert km["km_to_meridian"] == pytest.approx([0.0, east])


def test_distance_to_a_line_ends_at_its_ends() -> None:
    km = derived({"block": "distance", "points": {}, "lines": {"short": "10 23, 10 24"}})
    assert km["km_to_short"] == pytest.approx(111.2 * np.cos(np.radians(10.0)) * np.array([3.0, 2.0]))


def test_ratio_multiplies_powers_and_gives_nan_where_there_is_no_value() -> None:
    made = derived({"block": "ratio", "columns": {"a_per_b": {"a": 1, "b": -1}, "a_squared": {"a": 2}}})
    assert made["a_per_b"] == pytest.approx([2.0, np.nan], nan_ok=True)
    assert made["a_squared"] == pytest.approx([36.0, 1.0])


def test_blocks_of_geography_give_nothing_for_a_table_without_coordinates(rentals: Table) -> None:
    blocks: list[dict[str, Any]] = [
        {"block": "rotation", "degrees": [15]},
        {"block": "distance", "points": {"x": "1 2"}, "lines": {}},
    ]
    assert Features(rentals.schema, blocks, "keep").names == Features(rentals.schema, [], "keep").names


def test_imputing_gives_medians_flags_and_levels(rentals: Table) -> None:
    features = Features(rentals.schema, [], missing="impute")
    columns = features.fit_transform(rentals.matrix, rentals.target)
    assert features.names == [
        "area",
        "rooms",
        "furnished",
        "built",
        "built_is_missing",
        "quarter=old town",
        "quarter=harbour",
        "quarter=hills",
    ]
    missing = np.isnan(rentals.matrix[:, 4])
    assert not np.isnan(columns).any()
    np.testing.assert_array_equal(columns[:, 4], missing)
    assert set(columns[missing, 3]) == {np.median(rentals.matrix[~missing, 4])}
    np.testing.assert_array_equal(columns[:, 5:].argmax(axis=1), rentals.matrix[:, 3])
    np.testing.assert_array_equal(columns[:, 5:].sum(axis=1), 1.0)


def test_keeping_leaves_nan_to_the_estimator(rentals: Table) -> None:
    columns = Features(rentals.schema, [], missing="keep").fit_transform(rentals.matrix, rentals.target)
    np.testing.assert_array_equal(np.isnan(columns[:, 3]), np.isnan(rentals.matrix[:, 4]))


def test_a_missing_category_is_a_level_of_its_own() -> None:
    columns = {"c": {"type": "category", "categories": ["p", "q"], "nullable": True}, "y": {"type": "float", "role": "target"}}
    features = Features(Schema.from_dict({"name": "t", "columns": columns}), [], "impute")
    matrix = np.array([[0.0], [np.nan], [1.0]])
    np.testing.assert_array_equal(features.fit_transform(matrix, np.zeros(3)), [[1, 0, 0], [0, 0, 1], [0, 1, 0]])
    assert features.names == ["c=p", "c=q", "c=missing"]


def test_restored_features_give_the_same_also_row_by_row() -> None:
    blocks: list[dict[str, Any]] = [
        {"block": "rotation", "degrees": [15, 30]},
        {"block": "distance", "points": {"p": "10 22"}, "lines": {"l": "9 20, 12 23"}},
        {"block": "ratio", "columns": {"a_per_b": {"a": 1, "b": -1}}},
    ]
    fitted = Features(MAP, blocks, "impute")
    columns = fitted.fit_transform(ROWS, Y)
    restored = Features.restore(MAP, *fitted.state())
    np.testing.assert_array_equal(np.vstack([restored.transform(row[None]) for row in ROWS]), columns)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"block": "magic"}, "block 'magic' is not known; allowed: rotation, distance, ratio"),
        ({"block": "rotation"}, "block rotation: .*degrees"),
        ({"block": "rotation", "degrees": [1], "speed": 2}, "block rotation: .*speed"),
        ({"block": "ratio", "columns": {"r": {"nope": 1}}}, "table map has no column nope; it has lat, lon, a, b"),
        ({"block": "distance", "points": {"p": "1 2 3"}, "lines": {}}, "places: '1 2 3' is not of the form 'latitude longitude"),
        ({"block": "distance", "points": {}, "lines": {"l": "1 x"}}, "places: '1 x' is not of the form"),
    ],
)
def test_a_wrong_block_is_refused_with_what_is_allowed(block: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Features(MAP, [block], "keep")


def test_an_unknown_treatment_of_missing_values_is_refused() -> None:
    with pytest.raises(ConfigError, match="model.missing is 'drop'; allowed: impute, keep"):
        Features(MAP, [], "drop")
