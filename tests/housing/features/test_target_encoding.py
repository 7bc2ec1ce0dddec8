"""Mean targets of cells: by hand, and out of fold for training rows."""

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
# two heaps of rows far apart, each of two smaller ones
TRAIN = np.array([[0.0, lon] for lon in (0.0, 0.1, 1.0, 1.1, 50.0, 50.1, 51.0, 51.1)])
Y = np.array([1.0, 3.0, 5.0, 7.0, 20.0, 22.0, 24.0, 26.0])


def target_encoding(**changes: Any) -> SpatialTargetEncoding:
    """Two cells in a fold of two, next to no prior, unless told otherwise."""
    return SpatialTargetEncoding(SCHEMA, **{"n_clusters": [2], "folds": 2, "smoothing": 1e-9, "seed": 0, **changes})


def test_a_new_row_gets_the_mean_target_of_its_cell() -> None:
    block = target_encoding().fit(TRAIN, Y)
    assert block.names == ["target_encoding_2_clusters"]
    np.testing.assert_allclose(block.transform(np.array([[0.0, 0.5], [0.0, 60.0]])), [[4.0], [23.0]])


def test_a_cell_is_drawn_towards_the_mean_of_all_by_as_many_rows_as_the_prior_says() -> None:
    block = target_encoding(smoothing=4).fit(TRAIN, Y)
    np.testing.assert_allclose(block.transform(np.array([[0.0, 0.5]])), [[(4 * 4.0 + 4 * Y.mean()) / 8]])


def test_small_cells_lie_within_large_ones() -> None:
    block = target_encoding(n_clusters=[2, 4], seed=1).fit(TRAIN, Y)
    assert block.names == ["target_encoding_4_clusters", "target_encoding_2_clusters"]
    got = block.transform(np.array([[0.0, 0.05], [0.0, 51.05]]))
    np.testing.assert_allclose(got, [[2.0, 4.0], [25.0, 23.0]])


def test_a_training_row_gets_the_mean_of_the_rows_in_other_folds() -> None:
    got = target_encoding(folds=8).fit_transform(TRAIN, Y)[:, 0]  # of one row each
    np.testing.assert_allclose(got, [(16.0 - y) / 3 if y < 10 else (92.0 - y) / 3 for y in Y])


def test_a_training_rows_own_target_never_moves_its_own_columns(towns: Table) -> None:
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
        moved = (after != before).any(axis=1).mean()
        assert 0.75 < moved < 0.85  # four folds of five: through the mean of all, if not through the cell


def test_folds_and_cells_hang_on_the_seed_alone(towns: Table) -> None:
    def columns(seed: int) -> Matrix:
        return SpatialTargetEncoding(towns.schema, n_clusters=[20], folds=5, smoothing=10, seed=seed).fit_transform(
            towns.matrix, towns.target
        )

    np.testing.assert_array_equal(columns(1), columns(1))
    assert not np.array_equal(columns(1), columns(2))


def test_k_means_finds_heaps() -> None:
    random = np.random.default_rng(0)
    heaps = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = np.concatenate([heap + random.normal(0, 0.1, (30, 2)) for heap in heaps])
    found = min(
        (k_means(points, 3, np.random.default_rng(seed)) for seed in range(5)), key=lambda each: _squared_error(points, each)
    )
    assert sorted(map(tuple, found.round().tolist())) == sorted(map(tuple, heaps.tolist()))


def _squared_error(points: Matrix, centres: Matrix) -> float:
    return float(np.square(points[:, None] - centres).sum(axis=2).min(axis=1).sum())


def test_more_cells_than_places_are_taken() -> None:
    at_two_places = np.repeat(TRAIN[[0, 7]], 4, axis=0)
    block = target_encoding(n_clusters=[6])
    columns = block.fit_transform(at_two_places, Y)
    assert np.isfinite(columns).all()
    np.testing.assert_allclose(block.transform(TRAIN[[0, 7]]), [[4.0], [23.0]])


def test_fewer_rows_than_cells_are_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match="need at least 9 training rows .got 8"):
        target_encoding(n_clusters=[9]).fit(TRAIN, Y)


@pytest.mark.parametrize("change", [{"folds": 1}, {"folds": 0}, {"n_clusters": [0]}, {"smoothing": 0}])
def test_what_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"Block target_encoding: {next(iter(change))} must be .*got"):
        target_encoding(**change)
