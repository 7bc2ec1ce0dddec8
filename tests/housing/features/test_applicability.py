"""The area of applicability: rows outside it have no columns that depend on nearby training rows."""

from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from housing.core.errors import ConfigError
from housing.data.settings import parse_schema
from housing.data.split import split
from housing.data.table import Table, validate_frame
from housing.features.applicability import ApplicabilityDomain
from housing.features.pipeline import Features
from housing.fitting import fitting
from housing.fitting.fitting import FitSettings
from housing.schema.column import Matrix
from housing.scoring.metrics import score
from tests.support.tables import SMALL_GEO, config, towns_frame

KM = 111.2  # length of a degree at the equator
LOCAL_COLUMNS = {
    "north",
    "east",
    "rotated_15_x",
    "km_to_neighbour_5",
    "target_mean_of_1_nearest",
    "target_encoding_40_clusters",
    "rows_colocated",
}
NON_LOCAL_COLUMNS = {
    "area",
    "rooms",
    "garden",
    "km_to_market",
    "km_to_river",
    "rooms_per_area",
    "kind=flat",
    "kind=house",
    "kind=barn",
}


def rows_at(*longitudes: float) -> Matrix:
    """Return rows on the equator at these longitudes."""
    return np.array([[0.0, longitude] for longitude in longitudes])


def geo_features(**changes: Any) -> dict[str, Any]:
    """Return the features geo, small enough for the towns."""
    cfg: Any = OmegaConf.to_container(config("train", "data=towns", "features=geo", *SMALL_GEO).features, resolve=True)
    return {**cfg, **changes}


def test_the_threshold_is_a_multiple_of_a_quantile_of_the_nearest_neighbour_distances() -> None:
    domain = ApplicabilityDomain((0, 1), quantile=0.5, factor=3).fit(
        rows_at(0.0, 1.0, 2.0, 3.0, 8.0)
    )  # distances in degrees: 1, 1, 1, 1, 5
    assert domain.arrays["threshold_km"] == pytest.approx([3 * KM])
    np.testing.assert_array_equal(
        domain.is_outside(rows_at(0.0, 5.5, 5.9, 11.5, -2.9, -3.1)), [False, False, False, True, False, True]
    )


def test_the_proximity_falls_linearly_from_the_threshold_to_twice_the_threshold() -> None:
    domain = ApplicabilityDomain((0, 1), quantile=0.5, factor=1).fit(rows_at(0.0, 1.0, 2.0, 3.0))
    np.testing.assert_allclose(
        domain.proximity(rows_at(3.0, 4.0, 4.25, 4.5, 5.0, 50.0)), [1.0, 1.0, 0.75, 0.5, 0.0, 0.0], atol=1e-9
    )


def test_the_applicability_is_independent_of_the_size_of_the_map() -> None:
    city, country = (ApplicabilityDomain((0, 1), 0.9, 2).fit(size * rows_at(0.0, 1.0, 1.5, 4.0)) for size in (0.01, 1.0))
    np.testing.assert_array_equal(city.is_outside(0.01 * rows_at(6.0, 9.0, 10.0)), country.is_outside(rows_at(6.0, 9.0, 10.0)))


def test_colocated_training_rows_give_a_threshold_of_0() -> None:
    domain = ApplicabilityDomain((0, 1), quantile=0.5, factor=1).fit(rows_at(0.0, 0.0, 1.0, 1.0))
    np.testing.assert_array_equal(domain.proximity(rows_at(0.0, 0.5, 1.0)), [1.0, 0.0, 1.0])
    np.testing.assert_array_equal(domain.is_outside(rows_at(0.0, 0.5, 1.0)), [False, True, False])


@pytest.mark.parametrize(("quantile", "factor"), [(0.0, 1.0), (1.0, 1.0), (0.5, 0.0), (95.0, 1.0)])
def test_an_invalid_quantile_or_factor_is_an_error(quantile: float, factor: float) -> None:
    with pytest.raises(ConfigError, match="a quantile between 0 and 1 and a factor above 0 .got quantile="):
        ApplicabilityDomain((0, 1), quantile, factor)


@pytest.mark.parametrize(
    "declared", [{"quantile": 0.5}, {"quantile": 0.5, "factor": 1, "far": 2}, {"quantile": "x", "factor": 1}]
)
def test_other_parameters_are_an_error(towns: Table, declared: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="applicability needs"):
        ApplicabilityDomain.from_config(towns.schema, declared)


def test_a_table_without_coordinates_has_no_applicability_domain(rentals: Table) -> None:
    assert ApplicabilityDomain.from_config(rentals.schema, {"quantile": 0.5, "factor": 1}) is None


def test_far_rows_lack_exactly_the_columns_that_depend_on_nearby_rows(towns: Table) -> None:
    features = Features(towns.schema, geo_features(), "native")
    features.fit_transform(towns.matrix, towns.target)
    assert set(features.names) >= LOCAL_COLUMNS | NON_LOCAL_COLUMNS
    near, far = towns.matrix[~np.isnan(towns.matrix).any(axis=1)][:5], towns.matrix[~np.isnan(towns.matrix).any(axis=1)][:5]
    far[:, :2] += 10
    for name, near_values, far_values in zip(features.names, features.transform(near).T, features.transform(far).T, strict=True):
        if name in LOCAL_COLUMNS:
            assert np.isnan(far_values).all() and not np.isnan(near_values).any(), name
        if name in NON_LOCAL_COLUMNS:
            assert not np.isnan(far_values).any() and not np.isnan(near_values).any(), name
    mixed = features.transform(np.vstack([near, far]))
    np.testing.assert_array_equal(mixed, np.vstack([features.transform(near), features.transform(far)]))


def test_no_value_is_missing_without_applicability_or_with_imputation(towns: Table) -> None:
    far = towns.matrix[:5] + np.array([10.0, 10.0, 0, 0, 0, 0])
    for nan_handling, applicability in (("impute", {"quantile": 0.95, "factor": 1}), ("native", None)):
        features = Features(towns.schema, geo_features(applicability=applicability), nan_handling)
        features.fit_transform(towns.matrix, towns.target)
        columns = dict(zip(features.names, features.transform(far).T, strict=True))
        assert not np.isnan([columns[name] for name in LOCAL_COLUMNS]).any()


def test_estimators_are_fitted_on_each_training_row_and_on_a_far_copy(towns: Table) -> None:
    tree = ("model=decision_tree", "model.nan_handling=native", "data=towns", "features=geo", *SMALL_GEO)
    parts = split(towns, config("train", *tree).split)
    for overrides, copies in ((), 2), (("features.applicability=null",), 1):
        model = fitting.fit(FitSettings.from_config(config("train", *tree, *overrides)), towns, parts.train)
        fitted: Any = model.ensemble.members[0].estimator
        assert fitted.estimator.tree_.n_node_samples[0] == copies * len(parts.train)


def test_far_from_training_rows_a_model_with_applicability_keeps_its_skill() -> None:
    frame = towns_frame(900)
    frame["price"] = 1000 + 4 * frame["area"] + 300 * np.sin(5 * frame["north"]) + 300 * np.cos(5 * frame["east"])
    no_landmarks = ("features.blocks.distance.points={}", "features.blocks.distance.lines={}")
    small = (*no_landmarks, "data=towns", "features=geo", *SMALL_GEO, "model.estimator.n_estimators=150")
    table = validate_frame(parse_schema(config("train", *small).data), frame, "synthetic")
    west, far = np.flatnonzero(table.matrix[:, 1] < 6.2), table.matrix[table.matrix[:, 1] > 7.5]

    def skill(*overrides: str) -> float:
        model = fitting.fit(FitSettings.from_config(config("train", *small, *overrides)), table, west)
        return score(model.predict(far), 1000 + 4 * far[:, 2], None)["r2"]

    assert skill() > max(0.5, skill("features.applicability=null"))
