"""Columns from the nearest training rows: expected values computed by hand, and no leakage of a row's own target."""

from typing import Any

import numpy as np
import pytest

from housing.core.errors import ConfigError
from housing.data.table import Table
from housing.features.kd_tree import pack_tree
from housing.features.nearest_neighbours import NearestNeighbours
from housing.features.spatial_index import project_to_km
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema
from tests.support.tables import COORDINATES

KM = 111.2  # length of a degree at the equator
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


def rows_at(*longitudes: float, a: list[float] | None = None) -> Matrix:
    """Return rows on the equator at these longitudes."""
    return np.array(
        [[0.0, longitude, value, 0.0] for longitude, value in zip(longitudes, a or [0.0] * len(longitudes), strict=True)]
    )


TRAIN, Y = rows_at(0.0, 1.0, 3.0, 7.0, a=[1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 5.0, 11.0])


def columns_by_name(block: NearestNeighbours, columns: Matrix) -> dict[str, list[float]]:
    """Return the columns by name."""
    return dict(zip(block.names, columns.T.tolist(), strict=True))


def test_a_new_row_gets_distances_and_statistics_of_its_nearest_rows() -> None:
    block = NearestNeighbours(SCHEMA, **PARAMETERS).fit(TRAIN, Y)
    values = columns_by_name(block, block.transform(rows_at(0.25, a=[7.0])))  # distances: 0.25, 0.75, 2.75 and 6.75 degrees
    assert values["km_to_neighbour_1"] == pytest.approx([0.25 * KM])
    assert values["km_to_neighbour_3"] == pytest.approx([2.75 * KM])
    assert values["a_mean_of_2_nearest"] == [1.5]
    assert values["a_minus_mean_of_2_nearest"] == [5.5]
    assert [values[f"target_mean_of_{count}_nearest"] for count in (1, 2, 3)] == [[1.0], [2.0], [3.0]]
    assert values["target_std_of_3_nearest"] == pytest.approx([np.std([1.0, 3.0, 5.0])])
    weights = np.exp([-0.25, -0.75, -2.75])
    assert values["target_mean_decay_111.2_km"] == pytest.approx([weights @ [1.0, 3.0, 5.0] / weights.sum()])
    similarity = weights**0.5 * np.exp(-np.abs(np.array([1.0, 2.0, 3.0]) - 7.0) / (np.std([1, 2, 3, 4]) / 3))
    assert values["target_mean_of_similar"] == pytest.approx([similarity @ [1.0, 3.0, 5.0] / similarity.sum()], rel=1e-3)
    assert values["target_mean_colocated"] == pytest.approx([np.nan], nan_ok=True)
    assert values["rows_colocated"] == [0.0]


def test_colocated_rows_have_columns_of_their_own() -> None:
    block = NearestNeighbours(SCHEMA, **PARAMETERS).fit(rows_at(0.0, 0.0, 0.1, 5.0), Y)
    values = columns_by_name(block, block.transform(rows_at(0.0)))
    assert (values["target_mean_colocated"], values["rows_colocated"]) == ([2.0], [2.0])


def test_a_missing_value_is_replaced_by_the_training_median() -> None:
    block = NearestNeighbours(SCHEMA, **PARAMETERS).fit(rows_at(0.0, 1.0, 2.0, 3.0, a=[1.0, np.nan, 5.0, 6.0]), Y)
    values = columns_by_name(block, block.transform(rows_at(0.0, 0.0, a=[1.0, np.nan])))
    assert values["a_mean_of_2_nearest"] == [3.0, 3.0]  # mean of 1 and 5, the median of 1, 5 and 6
    assert values["a_minus_mean_of_2_nearest"] == pytest.approx([-2.0, np.nan], nan_ok=True)


def test_a_training_row_is_not_its_own_neighbour() -> None:
    values = columns_by_name(block := NearestNeighbours(SCHEMA, **PARAMETERS), block.fit_transform(TRAIN, Y))
    assert values["target_mean_of_1_nearest"] == [3.0, 1.0, 3.0, 5.0]
    assert values["km_to_neighbour_1"] == pytest.approx([KM, KM, 2 * KM, 4 * KM])
    assert values["a_mean_of_2_nearest"] == [2.5, 2.0, 1.5, 2.5]


def test_no_colocated_row_uses_its_own_target() -> None:
    target = np.exp2(np.arange(12.0))  # powers of 2: a sum identifies its terms
    block = NearestNeighbours(SCHEMA, **PARAMETERS)
    values = columns_by_name(block, block.fit_transform(rows_at(*[0.0] * 12), target))
    assert all(mean != own for mean, own in zip(values["target_mean_of_1_nearest"], target, strict=True))
    for mean, own in zip(values["target_mean_of_3_nearest"], target.astype(int), strict=True):
        terms = round(3 * mean)
        assert bin(terms).count("1") == 3 and not terms & own
    assert values["rows_colocated"] == [3.0] * 12


@pytest.mark.parametrize("left_out", [0, 5, 190, 599])
def test_a_training_row_gets_the_columns_of_a_new_row_without_its_own_target(towns: Table, left_out: int) -> None:
    matrix = towns.matrix + np.random.default_rng(0).uniform(0, 1e-3, (len(towns), 1))  # no two distances are equal
    block = NearestNeighbours(towns.schema, **{**PARAMETERS, "target_means": [1, 5, 20]})
    columns = block.fit_transform(matrix, towns.target)
    others = NearestNeighbours(towns.schema, **{**PARAMETERS, "target_means": [1, 5, 20]})
    row_arrays = ("columns", "targets")
    others.arrays |= {
        name: np.delete(array, left_out, axis=0) if name in row_arrays else array for name, array in block.arrays.items()
    }
    points = project_to_km(matrix[:, list(towns.schema.coordinates() or ())], float(block.arrays["latitude"][0]))
    others.arrays |= pack_tree(np.delete(points, left_out, axis=0))
    np.testing.assert_allclose(others.transform(matrix[[left_out]])[0], columns[left_out], rtol=1e-9)


def test_the_columns_of_a_training_row_are_independent_of_its_own_target(towns: Table) -> None:
    def columns(target: Vector) -> Matrix:
        return NearestNeighbours(towns.schema, **PARAMETERS).fit_transform(towns.matrix, target)

    before = columns(towns.target)
    for row in range(0, 600, 60):
        changed = towns.target.copy()
        changed[row] += 1000.0
        after = columns(changed)
        np.testing.assert_array_equal(after[row], before[row])
        assert not np.array_equal(after, before, equal_nan=True)


def test_columns_are_independent_of_the_chunk_size(towns: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    block = NearestNeighbours(towns.schema, **PARAMETERS).fit(towns.matrix, towns.target)
    expected = block.transform(towns.matrix)
    monkeypatch.setattr("housing.features.nearest_neighbours.CHUNK", 100)
    np.testing.assert_array_equal(block.transform(towns.matrix), expected)


def test_a_second_fit_replaces_the_first(towns: Table) -> None:
    block = NearestNeighbours(towns.schema, **PARAMETERS).fit(towns.matrix[:100], towns.target[:100])
    block.transform(towns.matrix[:1])
    fresh = NearestNeighbours(towns.schema, **PARAMETERS).fit(towns.matrix[300:], towns.target[300:])
    block.fit(towns.matrix[300:], towns.target[300:])
    np.testing.assert_array_equal(block.transform(towns.matrix[:50]), fresh.transform(towns.matrix[:50]))


def test_fewer_rows_than_neighbours_are_an_error_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match="need at least 4 training rows .got 3.*fewer neighbours"):
        NearestNeighbours(SCHEMA, **PARAMETERS).fit_transform(TRAIN[:3], Y[:3])


@pytest.mark.parametrize("constant", ["column", "target", "both"])
def test_constants_give_finite_columns(constant: str) -> None:
    matrix = rows_at(0.0, 1.0, 3.0, 6.0, a=[0.1] * 4) if constant != "target" else TRAIN
    target = np.full(4, 0.1) if constant != "column" else Y
    block = NearestNeighbours(SCHEMA, **PARAMETERS)
    columns = block.fit_transform(matrix, target)
    colocated = block.names.index("target_mean_colocated")
    assert np.isfinite(np.delete(columns, colocated, axis=1)).all()


def test_a_column_without_any_value_is_accepted() -> None:
    block = NearestNeighbours(SCHEMA, **PARAMETERS)
    values = columns_by_name(block, block.fit_transform(rows_at(0.0, 1.0, 3.0, 6.0, a=[np.nan] * 4), Y))
    assert values["a_mean_of_2_nearest"] == [0.0] * 4


def test_a_table_with_only_coordinates_is_accepted() -> None:
    declared = SCHEMA.to_dict()
    columns = {name: declared["columns"][name] for name in ("lat", "lon", "y")}
    block = NearestNeighbours(Schema.from_dict({**declared, "columns": columns}), **PARAMETERS)
    values = columns_by_name(block, block.fit_transform(TRAIN[:, :2], Y))
    assert values["target_mean_of_1_nearest"] == [3.0, 1.0, 3.0, 5.0]
    assert values["target_mean_of_similar"] == pytest.approx(values["target_mean_of_similar"])


@pytest.mark.parametrize(
    "change", [{"distances_to": [0]}, {"target_means": [-1]}, {"feature_means": []}, {"decay_km": [0]}, {"similarity_km": 0}]
)
def test_an_invalid_parameter_is_an_error(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"Block neighbours: {next(iter(change))} must be .*got"):
        NearestNeighbours(SCHEMA, **{**PARAMETERS, **change})
