"""Ensembles: the mean of their members, and the blend of near and far members by distance."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from housing.bundle.ensemble import CHUNK, FAR, NEAR, Ensemble, Member, restore_ensemble
from housing.core.errors import ConfigError
from housing.data.split import split
from housing.data.table import Table
from housing.features.applicability import ApplicabilityDomain
from housing.features.pipeline import Features
from housing.fitting import fitting
from housing.fitting.fitting import FitSettings
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema
from tests.support.tables import COORDINATES, NO_BLOCKS, SMALL_GEO, config

SCHEMA = Schema.from_dict(
    {
        "name": "equator",
        "columns": {
            **COORDINATES,
            "y": {"type": "float", "role": "target", "min": 0, "max": 100},
        },
    }
)
TRAIN = np.array([[0.0, 0.0], [0.0, 1.0], [0.0, 2.0]])


@dataclass
class ConstantEstimator:
    """An estimator that predicts a constant."""

    value: float

    def predict(self, columns: Matrix) -> Vector:
        """Return the constant for each row."""
        return np.full(len(columns), self.value)


class ColumnCounter:
    """An estimator that predicts the number of its columns."""

    def predict(self, columns: Matrix) -> Vector:
        """Return the number of columns for each row."""
        return np.full(len(columns), float(columns.shape[1]))


def features(**changes: Any) -> Features:
    """Return fitted features, by default without blocks."""
    fitted = Features(SCHEMA, {**NO_BLOCKS, **changes}, "native")
    fitted.fit_transform(TRAIN, np.zeros(3))
    return fitted


def applicability() -> ApplicabilityDomain:
    """Return an applicability domain with a threshold of one degree."""
    return ApplicabilityDomain((0, 1), quantile=0.5, factor=1).fit(TRAIN)


def test_members_are_averaged() -> None:
    ensemble = Ensemble(SCHEMA, [features()], [Member(ConstantEstimator(value), 0) for value in (1.0, 2.0, 6.0)])
    np.testing.assert_array_equal(ensemble.predict(TRAIN), [3.0] * 3)


def test_members_count_by_their_weights() -> None:
    members = [Member(ConstantEstimator(1.0), 0, weight=3.0), Member(ConstantEstimator(9.0), 0, weight=1.0)]
    np.testing.assert_allclose(Ensemble(SCHEMA, [features()], members).predict(TRAIN), [3.0] * 3)
    for weight in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ConfigError, match="weight of a member must be a finite number above 0"):
            Member(ConstantEstimator(1.0), 0, weight=weight)


def test_near_and_far_members_are_blended_by_the_distance_to_the_nearest_training_row() -> None:
    members = [
        Member(ConstantEstimator(10.0), 0, NEAR),
        Member(ConstantEstimator(30.0), 0, NEAR),
        Member(ConstantEstimator(60.0), 0, FAR),
    ]
    ensemble = Ensemble(SCHEMA, [features()], members, applicability())
    rows = np.array([[0.0, lon] for lon in (2.0, 3.0, 3.25, 3.5, 4.0, 50.0)])
    np.testing.assert_allclose(ensemble.predict(rows), [20.0, 20.0, 30.0, 40.0, 60.0, 60.0])


def test_a_member_for_all_regions_is_part_of_both_means() -> None:
    members = [
        Member(ConstantEstimator(10.0), 0, NEAR),
        Member(ConstantEstimator(20.0), 0),
        Member(ConstantEstimator(40.0), 0, FAR),
    ]
    ensemble = Ensemble(SCHEMA, [features()], members, applicability())
    np.testing.assert_allclose(ensemble.predict(np.array([[0.0, 2.0], [0.0, 9.0]])), [15.0, 30.0])


def test_a_row_gets_the_same_prediction_alone_and_in_a_batch() -> None:
    members = [Member(ConstantEstimator(10.0), 0, NEAR), Member(ConstantEstimator(60.0), 0, FAR)]
    ensemble = Ensemble(SCHEMA, [features()], members, applicability())
    rows = np.array([[0.0, lon] for lon in (2.0, 3.3, 50.0)])
    np.testing.assert_array_equal([ensemble.predict(row[None])[0] for row in rows], ensemble.predict(rows))
    assert ensemble.predict(rows[:0]).shape == (0,)
    many = np.tile(rows, (CHUNK, 1))  # three chunks
    np.testing.assert_array_equal(ensemble.predict(many), np.tile(ensemble.predict(rows), CHUNK))


def test_each_member_gets_the_selected_columns_of_its_features() -> None:
    rotated = features(blocks={"rotation": {"degrees": [30, 60]}})
    members = [Member(ColumnCounter(), 0), Member(ColumnCounter(), 1), Member(ColumnCounter(), 1, columns=[0, 2, 3])]
    predicted, columns = Ensemble(SCHEMA, [features(), rotated], members).predict_with_columns(TRAIN)
    np.testing.assert_array_equal(predicted, [(2 + 6 + 3) / 3] * 3)
    np.testing.assert_array_equal(columns, TRAIN)  # those of the first features


def test_predictions_are_clipped_to_the_bounds_of_the_target() -> None:
    for value, clipped in ((-5.0, 0.0), (50.0, 50.0), (500.0, 100.0)):
        np.testing.assert_array_equal(
            Ensemble(SCHEMA, [features()], [Member(ConstantEstimator(value), 0)]).predict(TRAIN), [clipped] * 3
        )


@pytest.mark.parametrize(
    ("regions", "has_applicability", "message"),
    [
        ([NEAR], True, "a member with the region far or all"),
        ([FAR], True, "a member with the region near or all"),
        ([], True, "a member with the region near or all"),
        ([NEAR, FAR], False, "need model.applicability and a table with coordinates"),
    ],
)
def test_members_that_leave_rows_without_prediction_are_an_error(
    regions: list[str], has_applicability: bool, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Ensemble(
            SCHEMA,
            [features()],
            [Member(ConstantEstimator(1.0), 0, region) for region in regions],
            applicability() if has_applicability else None,
        )


def test_an_unknown_region_is_an_error() -> None:
    with pytest.raises(ConfigError, match="region of a member must be all, near or far .got 'nearby'"):
        Member(ConstantEstimator(1.0), 0, "nearby")


def test_an_ensemble_is_restored_from_its_config() -> None:
    members = [
        Member(ConstantEstimator(10.0), 0, NEAR, [1]),
        Member(ConstantEstimator(60.0), 1, FAR),
        Member(ConstantEstimator(7.0), 0),
    ]
    ensemble = Ensemble(SCHEMA, [features(), features(exclude_roles=["latitude"])], members, applicability())
    estimators = [member.estimator for member in members]
    restored = restore_ensemble(SCHEMA, ensemble.features, estimators, ensemble.to_config(), applicability().arrays)
    assert restored.members == members
    rows = np.array([[0.0, lon] for lon in (2.0, 3.3, 50.0)])
    np.testing.assert_array_equal(restored.predict(rows), ensemble.predict(rows))


MEAN = ("data=towns", "model=mean", "features=static", "model.members.trees.model.estimator.n_estimators=20")


def test_a_mean_model_equals_the_mean_of_models_with_different_seeds(towns: Table) -> None:
    parts = split(towns, config("train", *MEAN).split)
    mean = fitting.fit(FitSettings.from_config(config("train", *MEAN, "seed=5")), towns, parts.train)
    overrides = ("data=towns", "features=static", "model.estimator.n_estimators=20")
    models = [
        fitting.fit(FitSettings.from_config(config("train", *overrides, f"seed={seed}")), towns, parts.train)
        for seed in (5, 6, 7)
    ]
    assert len(mean.ensemble.members) == 3 and len(mean.ensemble.features) == 1
    expected = np.mean([model.predict(towns.matrix) for model in models], axis=0)
    np.testing.assert_allclose(mean.predict(towns.matrix), expected, rtol=1e-12)
    assert len({model.predict(towns.matrix)[0] for model in models}) == 3


BLEND = ("data=towns", "model=blend", "features=geo", *SMALL_GEO)
FEW_ROUNDS = tuple(f"model.members.{name}.model.estimator.n_estimators=15" for name in ("near", "far"))


def test_near_and_far_members_of_a_blend_have_different_features(towns: Table) -> None:
    parts = split(towns, config("train", *BLEND).split)
    ensemble = fitting.fit(FitSettings.from_config(config("train", *BLEND, *FEW_ROUNDS)), towns, parts.train).ensemble
    names = {member.region: set(ensemble.features[member.features].names) for member in ensemble.members}
    assert "target_mean_of_1_nearest" in names[NEAR] and not {"north", "east", "target_mean_of_1_nearest"} & names[FAR]
    far_away = towns.matrix[:3] + np.array([12.0, 12.0, 0, 0, 0, 0])
    far_members = [member for member in ensemble.members if member.region == FAR]
    expected = np.mean([member.predict(ensemble.features[member.features].transform(far_away)) for member in far_members], axis=0)
    np.testing.assert_allclose(ensemble.predict(far_away), expected)


def test_a_blend_needs_coordinates(rentals: Table) -> None:
    cfg = config("train", "data=rentals", "model=blend", *FEW_ROUNDS)
    with pytest.raises(ConfigError, match="a table with coordinates"):
        fitting.fit(FitSettings.from_config(cfg), rentals, split(rentals, cfg.split).train)


def test_a_member_with_visible_blocks_gets_only_those_blocks(towns: Table) -> None:
    overrides = (*MEAN, "model.members.trees.n_seeds=1", "+model.members.trees.visible_blocks=[ratio]")
    parts = split(towns, config("train", *overrides).split)
    (member,) = fitting.fit(FitSettings.from_config(config("train", *overrides)), towns, parts.train).ensemble.members
    fitted: Any = member.estimator
    assert fitted.estimator.n_features_in_ == len(
        ["north", "east", "area", "rooms", "garden", "rooms_per_area", "3 kinds", "", ""]
    )
    with pytest.raises(ConfigError, match="visible_blocks names 'magic'.* Blocks: rotation, distance, ratio"):
        fitting.fit(
            FitSettings.from_config(config("train", *overrides[:-1], "+model.members.trees.visible_blocks=[magic]")),
            towns,
            parts.train,
        )


def test_several_seeds_of_an_estimator_without_random_state_are_an_error(rentals: Table) -> None:
    seedless = "~model.members.trees.model.estimator.random_state"
    cfg = config("train", "data=rentals", "model=mean", "features=none", seedless)
    with pytest.raises(ConfigError, match="members.trees.n_seeds must be 1 .got 3.: the estimator has no random_state"):
        fitting.fit(FitSettings.from_config(cfg), rentals, split(rentals, cfg.split).train)


@pytest.mark.parametrize("n_seeds", [0, -1, 1.5])
def test_an_invalid_number_of_seeds_is_an_error(rentals: Table, n_seeds: float) -> None:
    cfg = config("train", "data=rentals", "model=mean", "features=none", f"model.members.trees.n_seeds={n_seeds}")
    with pytest.raises(ConfigError, match=f"members.trees.n_seeds must be a whole number above 0 .got {n_seeds}"):
        fitting.fit(FitSettings.from_config(cfg), rentals, split(rentals, cfg.split).train)
