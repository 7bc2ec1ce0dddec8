"""Spatial target encoding: expected values computed by hand, and out-of-fold means for training rows."""

from typing import Any

import numpy as np
import pytest

from housing.core.errors import ConfigError
from housing.data.table import Table
from housing.features.target_encoding import SpatialTargetEncoding, k_means
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema
from tests.support.tables import COORDINATES

SCHEMA = Schema.from_dict({"name": "equator", "columns": {**COORDINATES, "y": {"type": "float", "role": "target"}}})
# two distant clusters of rows, each of two smaller clusters
TRAIN = np.array([[0.0, lon] for lon in (0.0, 0.1, 1.0, 1.1, 50.0, 50.1, 51.0, 51.1)])
Y = np.array([1.0, 3.0, 5.0, 7.0, 20.0, 22.0, 24.0, 26.0])


def target_encoding(**changes: Any) -> SpatialTargetEncoding:
    """Return an encoding, by default with two clusters, two folds and almost no smoothing."""
    return SpatialTargetEncoding(SCHEMA, **{"n_clusters": [2], "folds": 2, "smoothing": 1e-9, "seed": 0, **changes})


def test_a_new_row_gets_the_mean_target_of_its_cluster() -> None:
    block = target_encoding().fit(TRAIN, Y)
    assert block.names == ["target_encoding_2_clusters"]
    np.testing.assert_allclose(block.transform(np.array([[0.0, 0.5], [0.0, 60.0]])), [[4.0], [23.0]])


def test_smoothing_adds_that_many_rows_with_the_global_mean() -> None:
    block = target_encoding(smoothing=4).fit(TRAIN, Y)
    np.testing.assert_allclose(block.transform(np.array([[0.0, 0.5]])), [[(4 * 4.0 + 4 * Y.mean()) / 8]])


def test_small_clusters_are_parts_of_large_ones() -> None:
    block = target_encoding(n_clusters=[2, 4], seed=1).fit(TRAIN, Y)
    assert block.names == ["target_encoding_4_clusters", "target_encoding_2_clusters"]
    columns = block.transform(np.array([[0.0, 0.05], [0.0, 51.05]]))
    np.testing.assert_allclose(columns, [[2.0, 4.0], [25.0, 23.0]])


def test_a_training_row_gets_the_mean_of_the_rows_in_other_folds() -> None:
    columns = target_encoding(folds=8).fit_transform(TRAIN, Y)[:, 0]  # each fold has one row
    np.testing.assert_allclose(columns, [(16.0 - y) / 3 if y < 10 else (92.0 - y) / 3 for y in Y])


def test_the_columns_of_a_training_row_are_independent_of_its_own_target(towns: Table) -> None:
    def columns(target: Vector) -> Matrix:
        return SpatialTargetEncoding(towns.schema, n_clusters=[5, 20], folds=5, smoothing=10, seed=3).fit_transform(
            towns.matrix, target
        )

    before = columns(towns.target)
    for row in range(0, 600, 30):
        changed = towns.target.copy()
        changed[row] += 1000.0
        after = columns(changed)
        np.testing.assert_array_equal(after[row], before[row])
        affected = (after != before).any(axis=1).mean()
        assert 0.75 < affected < 0.85  # rows of the other four folds change, at least by the global mean


def test_folds_and_clusters_depend_only_on_the_seed(towns: Table) -> None:
    def columns(seed: int) -> Matrix:
        return SpatialTargetEncoding(towns.schema, n_clusters=[20], folds=5, smoothing=10, seed=seed).fit_transform(
            towns.matrix, towns.target
        )

    np.testing.assert_array_equal(columns(1), columns(1))
    assert not np.array_equal(columns(1), columns(2))


def test_k_means_recovers_separate_clusters() -> None:
    random = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = np.concatenate([centre + random.normal(0, 0.1, (30, 2)) for centre in centres])
    fitted = min(
        (k_means(points, 3, np.random.default_rng(seed)) for seed in range(5)),
        key=lambda candidate: _squared_error(points, candidate),
    )
    assert sorted(map(tuple, fitted.round().tolist())) == sorted(map(tuple, centres.tolist()))


def _squared_error(points: Matrix, centres: Matrix) -> float:
    return float(np.square(points[:, None] - centres).sum(axis=2).min(axis=1).sum())


def test_more_clusters_than_locations_are_accepted() -> None:
    two_locations = np.repeat(TRAIN[[0, 7]], 4, axis=0)
    block = target_encoding(n_clusters=[6])
    columns = block.fit_transform(two_locations, Y)
    assert np.isfinite(columns).all()
    np.testing.assert_allclose(block.transform(TRAIN[[0, 7]]), [[4.0], [23.0]])


def test_fewer_rows_than_clusters_are_an_error_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match="need at least 9 training rows .got 8"):
        target_encoding(n_clusters=[9]).fit(TRAIN, Y)


@pytest.mark.parametrize("change", [{"folds": 1}, {"folds": 0}, {"n_clusters": [0]}, {"smoothing": 0}])
def test_an_invalid_parameter_is_an_error(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"Block target_encoding: {next(iter(change))} must be .*got"):
        target_encoding(**change)
