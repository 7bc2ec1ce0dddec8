"""Columns from the nearest training rows: by hand, and never from a row itself."""

from typing import Any

import numpy as np
import pytest

from housing.core.errors import ConfigError
from housing.data.table import Table
from housing.features.nearest_neighbours import NearestNeighbours
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema
from tests.support.tables import COORDINATES

KM = 111.2  # of a degree on the equator
SCHEMA = Schema.from_dict(
    {
        "name": "equator",
        "columns": {
            **COORDINATES,
            "a": {"type": "float", "nullable": True},
            "kind": {"type": "category", "categories": ["p", "q"]},
            "y": {"type": "float", "role": "target"},
        },
    }
)
PARAMETERS: dict[str, Any] = {
    "distances_to": [1, 3],
    "feature_means": [2],
    "target_means": [1, 2, 3],
    "target_stds": [3],
    "decay_km": [KM],
    "similarity_km": 2 * KM,
}


def rows_at(*places: float, a: list[float] | None = None) -> Matrix:
    """Rows on the equator, at these longitudes."""
    return np.array([[0.0, lon, each, 0.0] for lon, each in zip(places, a or [0.0] * len(places), strict=True)])


TRAIN, Y = rows_at(0.0, 1.0, 3.0, 7.0, a=[1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 5.0, 11.0])


def columns_by_name(block: NearestNeighbours, columns: Matrix) -> dict[str, list[float]]:
    """Columns by name."""
    return dict(zip(block.names, columns.T.tolist(), strict=True))


def test_a_new_row_gets_what_its_nearest_rows_are_like() -> None:
    block = NearestNeighbours(SCHEMA, **PARAMETERS).fit(TRAIN, Y)
    got = columns_by_name(block, block.transform(rows_at(0.25, a=[7.0])))  # 0.25, 0.75, 2.75 and 6.75 degrees from the rows
    assert got["km_to_neighbour_1"] == pytest.approx([0.25 * KM])
    assert got["km_to_neighbour_3"] == pytest.approx([2.75 * KM])
    assert got["a_mean_of_2_nearest"] == [1.5]
    assert got["a_minus_mean_of_2_nearest"] == [5.5]
    assert [got[f"target_mean_of_{count}_nearest"] for count in (1, 2, 3)] == [[1.0], [2.0], [3.0]]
    assert got["target_std_of_3_nearest"] == pytest.approx([np.std([1.0, 3.0, 5.0])])
    weights = np.exp([-0.25, -0.75, -2.75])
    assert got["target_mean_decay_111.2_km"] == pytest.approx([weights @ [1.0, 3.0, 5.0] / weights.sum()])
    alike = weights**0.5 * np.exp(-np.abs(np.array([1.0, 2.0, 3.0]) - 7.0) / (np.std([1, 2, 3, 4]) / 3))
    assert got["target_mean_of_similar"] == pytest.approx([alike @ [1.0, 3.0, 5.0] / alike.sum()], rel=1e-3)
    assert got["target_mean_colocated"] == pytest.approx([np.nan], nan_ok=True)
    assert got["rows_colocated"] == [0.0]


def test_rows_at_the_same_place_are_told_apart_from_near_ones() -> None:
    block = NearestNeighbours(SCHEMA, **PARAMETERS).fit(rows_at(0.0, 0.0, 0.1, 5.0), Y)
    got = columns_by_name(block, block.transform(rows_at(0.0)))
    assert (got["target_mean_colocated"], got["rows_colocated"]) == ([2.0], [2.0])


def test_a_missing_number_is_the_training_rows_median() -> None:
    block = NearestNeighbours(SCHEMA, **PARAMETERS).fit(rows_at(0.0, 1.0, 2.0, 3.0, a=[1.0, np.nan, 5.0, 6.0]), Y)
    got = columns_by_name(block, block.transform(rows_at(0.0, 0.0, a=[1.0, np.nan])))
    assert got["a_mean_of_2_nearest"] == [3.0, 3.0]  # of 1 and the median of 1, 5, 6
    assert got["a_minus_mean_of_2_nearest"] == pytest.approx([-2.0, np.nan], nan_ok=True)


def test_a_training_row_is_no_neighbour_of_its_own() -> None:
    got = columns_by_name(block := NearestNeighbours(SCHEMA, **PARAMETERS), block.fit_transform(TRAIN, Y))
    assert got["target_mean_of_1_nearest"] == [3.0, 1.0, 3.0, 5.0]
    assert got["km_to_neighbour_1"] == pytest.approx([KM, KM, 2 * KM, 4 * KM])
    assert got["a_mean_of_2_nearest"] == [2.5, 2.0, 1.5, 2.5]


def test_of_many_rows_at_one_place_none_sees_itself() -> None:
    target = np.exp2(np.arange(12.0))  # any sum tells who is in it
    block = NearestNeighbours(SCHEMA, **PARAMETERS)
    got = columns_by_name(block, block.fit_transform(rows_at(*[0.0] * 12), target))
    assert all(mean != own for mean, own in zip(got["target_mean_of_1_nearest"], target, strict=True))
    for mean, own in zip(got["target_mean_of_3_nearest"], target.astype(int), strict=True):
        seen = round(3 * mean)
        assert bin(seen).count("1") == 3 and not seen & own
    assert got["rows_colocated"] == [3.0] * 12


@pytest.mark.parametrize("left_out", [0, 5, 190, 599])
def test_a_training_rows_columns_are_those_it_would_have_as_a_new_row(towns: Table, left_out: int) -> None:
    matrix = towns.matrix + np.random.default_rng(0).uniform(0, 1e-3, (len(towns), 1))  # no two rows are equally far
    block = NearestNeighbours(towns.schema, **{**PARAMETERS, "target_means": [1, 5, 20]})
    columns = block.fit_transform(matrix, towns.target)
    others = NearestNeighbours(towns.schema, **{**PARAMETERS, "target_means": [1, 5, 20]})
    of_rows = ("points", "columns", "targets")
    others.arrays |= {
        name: np.delete(array, left_out, axis=0) if name in of_rows else array for name, array in block.arrays.items()
    }
    np.testing.assert_allclose(others.transform(matrix[[left_out]])[0], columns[left_out], rtol=1e-9)


def test_a_training_rows_own_target_never_moves_its_own_columns(towns: Table) -> None:
    def columns(target: Vector) -> Matrix:
        return NearestNeighbours(towns.schema, **PARAMETERS).fit_transform(towns.matrix, target)

    before = columns(towns.target)
    for row in range(0, 600, 60):
        changed = towns.target.copy()
        changed[row] += 1000.0
        after = columns(changed)
        np.testing.assert_array_equal(after[row], before[row])
        assert not np.array_equal(after, before, equal_nan=True)


def test_many_rows_get_the_same_as_few(towns: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    block = NearestNeighbours(towns.schema, **PARAMETERS).fit(towns.matrix, towns.target)
    at_once = block.transform(towns.matrix)
    monkeypatch.setattr("housing.features.nearest_neighbours.CHUNK", 100)
    np.testing.assert_array_equal(block.transform(towns.matrix), at_once)


def test_a_second_fit_forgets_the_first(towns: Table) -> None:
    block = NearestNeighbours(towns.schema, **PARAMETERS).fit(towns.matrix[:100], towns.target[:100])
    block.transform(towns.matrix[:1])
    fresh = NearestNeighbours(towns.schema, **PARAMETERS).fit(towns.matrix[300:], towns.target[300:])
    block.fit(towns.matrix[300:], towns.target[300:])
    np.testing.assert_array_equal(block.transform(towns.matrix[:50]), fresh.transform(towns.matrix[:50]))


def test_fewer_rows_than_neighbours_are_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match="need at least 4 training rows .got 3.*fewer neighbours"):
        NearestNeighbours(SCHEMA, **PARAMETERS).fit_transform(TRAIN[:3], Y[:3])


@pytest.mark.parametrize("constant", ["column", "target", "both"])
def test_constants_give_finite_columns(constant: str) -> None:
    matrix = rows_at(0.0, 1.0, 3.0, 6.0, a=[0.1] * 4) if constant != "target" else TRAIN
    target = np.full(4, 0.1) if constant != "column" else Y
    block = NearestNeighbours(SCHEMA, **PARAMETERS)
    columns = block.fit_transform(matrix, target)
    with_here = block.names.index("target_mean_colocated")
    assert np.isfinite(np.delete(columns, with_here, axis=1)).all()


def test_a_column_without_a_single_number_is_taken() -> None:
    block = NearestNeighbours(SCHEMA, **PARAMETERS)
    got = columns_by_name(block, block.fit_transform(rows_at(0.0, 1.0, 3.0, 6.0, a=[np.nan] * 4), Y))
    assert got["a_mean_of_2_nearest"] == [0.0] * 4


def test_a_table_of_places_alone_has_neighbours_too() -> None:
    declared = SCHEMA.to_dict()
    columns = {name: declared["columns"][name] for name in ("lat", "lon", "y")}
    block = NearestNeighbours(Schema.from_dict({**declared, "columns": columns}), **PARAMETERS)
    got = columns_by_name(block, block.fit_transform(TRAIN[:, :2], Y))
    assert got["target_mean_of_1_nearest"] == [3.0, 1.0, 3.0, 5.0]
    assert got["target_mean_of_similar"] == pytest.approx(got["target_mean_of_similar"])


@pytest.mark.parametrize(
    "change", [{"distances_to": [0]}, {"target_means": [-1]}, {"feature_means": []}, {"decay_km": [0]}, {"similarity_km": 0}]
)
def test_what_cannot_be_counted_or_measured_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"Block neighbours: {next(iter(change))} must be .*got"):
        NearestNeighbours(SCHEMA, **{**PARAMETERS, **change})
