"""The feature blocks, each against values computed by hand, and the encoding."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from housing.core.errors import ConfigError
from housing.data.split import split
from housing.data.table import Table
from housing.features.pipeline import Features
from housing.fitting import fitting
from housing.fitting.fitting import FitSettings
from housing.schema.table_schema import Schema
from housing.scoring.metrics import score
from tests.support.tables import NO_BLOCKS, SMALL, config

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


def features_config(**blocks: dict[str, Any]) -> dict[str, Any]:
    """Return the config of features with these blocks."""
    return {**NO_BLOCKS, "blocks": blocks}


def derived_columns(**block: dict[str, Any]) -> dict[str, list[float]]:
    """Return the columns that a block adds, by name."""
    features = Features(MAP, features_config(**block), nan_handling="native")
    columns = features.fit_transform(ROWS, Y)
    assert features.names[:4] == ["lat", "lon", "a", "b"]
    return dict(zip(features.names[4:], columns[:, 4:].T.tolist(), strict=True))


def test_rotation_turns_the_axes() -> None:
    columns = derived_columns(rotation={"degrees": [90]})
    assert columns == {"rotated_90_x": pytest.approx([10.0, 10.0]), "rotated_90_y": pytest.approx([-20.0, -21.0])}


def test_distances_to_points_and_lines_are_in_km() -> None:
    km = derived_columns(distance={"points": {"here": "10 20", "north": "11 20"}, "lines": {"meridian": "0 20, 90 20"}})
    east = 111.2 * np.cos(np.radians(10.0))
    assert km["km_to_here"] == pytest.approx([0.0, east])
    assert km["km_to_north"] == pytest.approx([111.2, np.hypot(111.2, east)])
    assert km["km_to_nearest"] == pytest.approx([0.0, east])
    assert km["km_to_meridian"] == pytest.approx([0.0, east])


def test_the_distance_beside_a_line_is_that_to_its_end() -> None:
    km = derived_columns(distance={"points": {}, "lines": {"short": "10 23, 10 24"}})
    assert km["km_to_short"] == pytest.approx(111.2 * np.cos(np.radians(10.0)) * np.array([3.0, 2.0]))


def test_ratios_multiply_powers_and_are_nan_without_a_value() -> None:
    columns = derived_columns(ratio={"columns": {"a_per_b": {"a": 1, "b": -1}, "a_squared": {"a": 2}}})
    assert columns["a_per_b"] == pytest.approx([2.0, np.nan], nan_ok=True)
    assert columns["a_squared"] == pytest.approx([36.0, 1.0])


def test_spatial_blocks_add_no_columns_to_a_table_without_coordinates(rentals: Table) -> None:
    for name in ("static", "geo", "full"):
        features_cfg = config("train", "data=rentals", f"features={name}").features
        features = Features(rentals.schema, features_cfg, "native")
        assert features.names == Features(rentals.schema, features_config(), "native").names
        assert features.fit_transform(rentals.matrix, rentals.target).shape == (len(rentals), len(features.names))


def test_landmarks_add_distances_and_exclude_coordinates(towns: Table) -> None:
    features_cfg = config("train", "data=towns", "features=landmarks").features
    names = Features(towns.schema, features_cfg, "native").names
    assert names == [
        *("area", "rooms", "garden", "km_to_market", "km_to_harbour", "km_to_nearest", "km_to_river", "rooms_per_area"),
        *("kind=flat", "kind=house", "kind=barn"),
    ]


def test_imputation_adds_medians_flags_and_levels(rentals: Table) -> None:
    features = Features(rentals.schema, features_config(), nan_handling="impute")
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


def test_native_handling_leaves_nan_to_the_estimator(rentals: Table) -> None:
    columns = Features(rentals.schema, features_config(), nan_handling="native").fit_transform(rentals.matrix, rentals.target)
    np.testing.assert_array_equal(np.isnan(columns[:, 3]), np.isnan(rentals.matrix[:, 4]))


def test_a_missing_category_is_its_own_level() -> None:
    columns = {"c": {"type": "category", "categories": ["p", "q"], "nullable": True}, "y": {"type": "float", "role": "target"}}
    features = Features(Schema.from_dict({"name": "t", "columns": columns}), features_config(), "impute")
    matrix = np.array([[0.0], [np.nan], [1.0]])
    np.testing.assert_array_equal(features.fit_transform(matrix, np.zeros(3)), [[1, 0, 0], [0, 0, 1], [0, 1, 0]])
    assert features.names == ["c=p", "c=q", "c=missing"]


@pytest.mark.parametrize("name", ["static", "geo", "full"])
@pytest.mark.parametrize("nan_handling", ["impute", "native"])
def test_restored_features_give_equal_columns_in_a_batch_and_row_by_row(towns: Table, name: str, nan_handling: str) -> None:
    fitted = Features(towns.schema, towns_features(name), nan_handling)
    fitted.fit_transform(towns.matrix[:300], towns.target[:300])
    columns = fitted.transform(towns.matrix[300:360])
    restored = Features.restore(towns.schema, *json_round_trip(fitted))
    np.testing.assert_array_equal(restored.transform(towns.matrix[300:360]), columns)
    single = np.vstack([restored.transform(row[None]) for row in towns.matrix[300:360]])
    np.testing.assert_allclose(single, columns, rtol=1e-9, atol=1e-9)


def towns_features(name: str) -> dict[str, Any]:
    """Return features of the project's config, small enough for the towns."""
    container: Any = OmegaConf.to_container(
        config("train", "data=towns", f"features={name}", *SMALL[name]).features, resolve=True
    )
    return dict(container)


def json_round_trip(features: Features) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the state as it is after writing and reading a file."""
    state, arrays = features.state()
    return json.loads(json.dumps(state)), arrays


@pytest.mark.parametrize("name", ["static", "geo", "full"])
def test_an_empty_table_gives_an_empty_matrix(towns: Table, name: str) -> None:
    features = Features(towns.schema, towns_features(name), "native")
    features.fit_transform(towns.matrix[:300], towns.target[:300])
    assert features.transform(towns.matrix[:0]).shape == (0, len(features.names))


@pytest.mark.parametrize("name", ["geo", "full"])
def test_features_are_independent_of_held_out_targets(towns: Table, name: str) -> None:
    cfg = config("train", "data=towns", f"features={name}", *SMALL[name], "model.estimator.n_estimators=2")
    parts = split(towns, cfg.split)
    held_out = np.concatenate([parts.valid, parts.test])
    noise = towns.target.copy()
    noise[held_out] = np.random.default_rng(0).normal(1e6, 1e6, len(held_out))
    clean, noisy = (
        fitting.fit(FitSettings.from_config(cfg), table, parts.train, parts.valid).ensemble.features[0]
        for table in (towns, dataclasses.replace(towns, target=noise))
    )
    for rows in (held_out, parts.train):
        np.testing.assert_array_equal(clean.transform(towns.matrix[rows]), noisy.transform(towns.matrix[rows]))
    for array, noisy_array in zip(clean.state()[1].values(), noisy.state()[1].values(), strict=True):
        np.testing.assert_array_equal(array, noisy_array)


@pytest.mark.parametrize("name", ["geo", "full"])
def test_shuffled_targets_give_no_skill(towns: Table, name: str) -> None:
    cfg = config("train", "data=towns", f"features={name}", *SMALL[name], "model.estimator.n_estimators=60", "split.test=0.5")
    parts = split(towns, cfg.split)
    target = towns.target.copy()
    target[parts.train] = np.random.default_rng(1).permutation(target[parts.train])
    model = fitting.fit(FitSettings.from_config(cfg), dataclasses.replace(towns, target=target), parts.train)
    assert score(model.predict(towns.matrix[parts.test]), towns.target[parts.test], None)["r2"] < 0.05
    unshuffled = fitting.fit(FitSettings.from_config(cfg), towns, parts.train)
    assert score(unshuffled.predict(towns.matrix[parts.test]), towns.target[parts.test], None)["r2"] > 0.8


@pytest.mark.parametrize("name", ["geo", "full"])
def test_no_column_leaks_the_target_of_its_own_training_row(towns: Table, name: str) -> None:
    """An estimator would rely too much on a column that contains information about the row's own target."""
    features = Features(towns.schema, towns_features(name), "native")
    noise = np.random.default_rng(2).permutation(towns.target)  # only a leak can correlate with it
    columns = features.fit_transform(towns.matrix, noise)
    for column, label in zip(columns.T, features.names, strict=True):
        present = ~np.isnan(column)
        if column[present].std() > 0:
            assert abs(np.corrcoef(column[present], noise[present])[0, 1]) < 0.2, label


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (
            {"magic": {}},
            "Unknown block 'magic'. Blocks: rotation, distance, ratio, neighbours, target_encoding, gaussian_process",
        ),
        ({"turned": {"block": "magic"}}, "Unknown block 'magic'"),
        ({"rotation": {}}, "Block rotation: .*degrees"),
        ({"rotation": {"degrees": [1], "speed": 2}}, "Block rotation: .*speed"),
        ({"ratio": {"columns": {"r": {"nope": 1}}}}, "Table map has no feature column nope. Feature columns: lat, lon, a, b"),
        ({"distance": {"points": {"p": "1 2 3"}, "lines": {}}}, "form 'latitude longitude, .*got '1 2 3'"),
        ({"distance": {"points": {}, "lines": {"l": "1 x"}}}, "form 'latitude longitude, .*got '1 x'"),
    ],
)
def test_an_invalid_block_is_an_error_with_the_allowed_values(blocks: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Features(MAP, features_config(**blocks), "native")


def test_an_unknown_nan_handling_is_an_error() -> None:
    with pytest.raises(ConfigError, match="model.nan_handling must be impute or native .got 'drop'"):
        Features(MAP, features_config(), "drop")


def test_excluding_an_unknown_role_is_an_error() -> None:
    with pytest.raises(ConfigError, match="features.exclude_roles must be among feature, latitude, longitude.*got 'lattitude'"):
        Features(MAP, {**features_config(), "exclude_roles": ["lattitude"]}, "native")


def test_a_missing_key_of_a_preset_is_an_error() -> None:
    with pytest.raises(ConfigError, match="features.applicability is missing"):
        Features(MAP, {"blocks": {}, "exclude_roles": []}, "native")


def test_excluding_all_columns_is_an_error() -> None:
    roles = ["latitude", "longitude", "feature"]
    with pytest.raises(ConfigError, match="exclude_roles excludes all columns of table map"):
        Features(MAP, {**features_config(), "exclude_roles": roles}, "native")


@pytest.mark.parametrize("label", ["encoder", "applicability", "a.b"])
def test_a_block_label_that_the_state_cannot_store_is_an_error(label: str) -> None:
    with pytest.raises(ConfigError, match=f"label of a block .*got '{label}'"):
        Features(MAP, features_config(**{label: {"block": "rotation", "degrees": [1]}}), "native")


def test_two_blocks_that_create_the_same_column_are_an_error() -> None:
    duplicates = {label: {"block": "rotation", "degrees": [15]} for label in ("first", "second")}
    with pytest.raises(ConfigError, match="Two blocks create column rotated_15_x"):
        Features(MAP, features_config(**duplicates), "native")


def test_a_category_in_a_ratio_is_an_error(towns: Table) -> None:
    with pytest.raises(ConfigError, match="ratio: column kind must be a number"):
        Features(towns.schema, features_config(ratio={"columns": {"odd": {"kind": 1}}}), "native")
