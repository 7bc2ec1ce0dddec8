"""The compiled loops of the spatial features: every bit equals the result of numpy and scipy."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.features import compiled
from housing.features.applicability import ApplicabilityDomain
from housing.features.kd_tree import KdTree, pack_tree
from housing.features.landmarks import LandmarkDistances
from housing.features.nearest_neighbours import CHUNK, NearestNeighbours
from housing.features.target_encoding import SpatialTargetEncoding
from housing.schema.column import Matrix
from housing.schema.table_schema import Schema
from tests.support.tables import COORDINATES

kernels = pytest.importorskip("housing.features.spatial_kernels", reason="the kernels are not compiled: no C compiler")

POINTS = {"a": "45.5 6.5", "b": "46 7"}
LINES = {"long": "45 5, 45.5 5.5, 46 5.2, 47 8", "short": "45 8, 46 8", "stops": "45 8, 46 8, 46 8, 46.5 8"}
NEIGHBOURS: dict[str, Any] = {
    "distances_to": [1, 7],
    "feature_means": [9, 3],
    "target_means": [1, 2, 12],
    "target_stds": [4],
    "decay_km": [1, 30],
    "similarity_km": 5,
}
MANY_NEIGHBOURS = {**NEIGHBOURS, "feature_means": [150, 8], "target_means": [150]}  # numpy sums more than 128 by halves


def scattered(random: np.random.Generator, rows: int) -> Matrix:
    """Return coordinates that differ."""
    return random.uniform((45.0, 5.0), (47.0, 8.0), (rows, 2))


def on_a_grid(random: np.random.Generator, rows: int) -> Matrix:
    """Return coordinates with many equal distances and many rows at the same location."""
    return random.integers((0, 0), (8, 8), (rows, 2)) / 4.0 + (45.0, 5.0)


def at_one_place(_random: np.random.Generator, rows: int) -> Matrix:
    """Return equal coordinates."""
    return np.full((rows, 2), (45.5, 6.25))


PLACES = [scattered, on_a_grid, at_one_place]
Places = Callable[[np.random.Generator, int], Matrix]


def schema_of(n_columns: int) -> Schema:
    """Return a schema of coordinates and nullable numbers."""
    numbers = {f"x{index}": {"type": "float", "nullable": True} for index in range(n_columns)}
    return Schema.from_dict({"name": "t", "columns": {**COORDINATES, **numbers, "y": {"type": "float", "role": "target"}}})


def rows_of(random: np.random.Generator, places: Places, rows: int, n_columns: int) -> Matrix:
    """Return rows, a tenth of whose numbers are missing."""
    numbers = random.lognormal(size=(rows, n_columns))
    numbers[random.random(numbers.shape) < 0.1] = np.nan
    return np.hstack([places(random, rows), numbers])


@contextmanager
def without_kernels() -> Iterator[None]:
    """Run a block as an installation without a C compiler does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "kernels", None)
        yield


def assert_same_bits(compute: Callable[[], list[NDArray[Any]]]) -> None:
    """Compare all results with those of numpy and scipy."""
    actual = compute()
    with without_kernels():
        expected = compute()
    for one, other in zip(actual, expected, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("count", [1, 2, 16, 50, 200])
def test_the_search_finds_the_points_of_scipy_in_its_order(places: Places, count: int) -> None:
    random = np.random.default_rng(count)
    points = places(random, 400)
    queries = np.vstack([places(random, 100), points[:50], scattered(random, 20) * 3])

    def search() -> list[NDArray[Any]]:
        tree = KdTree(points)
        return [*tree.query(queries, count), *tree.query(queries[:1], count), *tree.leave_one_out(count)]

    assert_same_bits(search)


@pytest.mark.parametrize("places", PLACES)
def test_a_restored_tree_finds_the_same_points_with_and_without_kernels(places: Places) -> None:
    random = np.random.default_rng(3)
    points, queries = places(random, 400), scattered(random, 50)
    expected = [*KdTree(points).query(queries, 16), *KdTree(points).leave_one_out(16)]

    def search() -> list[NDArray[Any]]:
        tree = KdTree.restore(pack_tree(points), [0, 1], np.ones(2))
        return [*tree.query(queries, 16), *tree.leave_one_out(16)]

    assert_same_bits(search)
    for one, other in zip(search(), expected, strict=True):
        assert one.tobytes() == other.tobytes()


def first_inner_node(packed: dict[str, Any], **values: int) -> None:
    """Change the root of a packed tree."""
    for name, value in values.items():
        packed["tree_nodes"][name][0] = value


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda packed: first_inner_node(packed, first=0), "do not form a tree"),  # an endless loop
        (lambda packed: first_inner_node(packed, second=1), "do not form a tree"),
        (lambda packed: first_inner_node(packed, second=4_000_000_000), "do not form a tree"),
        (lambda packed: first_inner_node(packed, axis=2), "do not form a tree"),
        (lambda packed: packed["tree_nodes"]["second"].__setitem__(-1, 401), "do not form a tree"),  # beyond the points
        (lambda packed: packed["tree_nodes"]["first"].__setitem__(-1, 399), "do not form a tree"),  # leaves points out
        (lambda packed: packed["tree_order"].__setitem__(0, 400), "do not form a tree"),
        (lambda packed: packed["tree_order"].__setitem__(0, packed["tree_order"][1]), "do not form a tree"),
        (lambda packed: packed["tree_points"].__setitem__((5, 1), np.nan), "finite"),
        (lambda packed: packed.update(tree_points=packed["tree_points"][:-1]), "other shapes"),
        (lambda packed: packed.update(tree_nodes=packed["tree_nodes"][:0]), "other shapes"),
        (lambda packed: packed.update(tree_order=packed["tree_order"].astype(np.int64)), "other types"),
    ],
)
def test_a_damaged_tree_is_an_error_before_it_is_searched(damage: Callable[[dict[str, Any]], None], message: str) -> None:
    packed = pack_tree(scattered(np.random.default_rng(0), 400))
    damage(packed)
    with pytest.raises(ConfigError, match=message):
        KdTree.restore(packed, [0, 1], np.ones(2))


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("n_columns", [0, 1, 2, 6])
@pytest.mark.parametrize("parameters", [NEIGHBOURS, MANY_NEIGHBOURS])
def test_statistics_of_neighbours(places: Places, n_columns: int, parameters: dict[str, Any]) -> None:
    random = np.random.default_rng(n_columns)
    train, target = rows_of(random, places, CHUNK + 60, n_columns), random.lognormal(size=CHUNK + 60)
    new = rows_of(random, places, 2 * CHUNK + 1, n_columns)
    new[:5] = train[:5]

    def derive() -> list[NDArray[Any]]:
        block = NearestNeighbours(schema_of(n_columns), **parameters)
        columns = block.fit_transform(train, target)
        return [
            columns,
            block.transform(new),
            block.transform(new[:1]),
            block.transform(np.asfortranarray(new)),
            block.transform(new[:0]),
        ]

    assert_same_bits(derive)


@pytest.mark.parametrize("places", [scattered, on_a_grid])
def test_clusters_and_applicability(places: Places) -> None:
    random = np.random.default_rng(1)
    train, target, new = rows_of(random, places, 300, 1), random.lognormal(size=300), rows_of(random, scattered, 90, 1)

    def derive() -> list[NDArray[Any]]:
        block = SpatialTargetEncoding(schema_of(1), [4, 20], folds=3, smoothing=5, seed=0)
        domain = ApplicabilityDomain((0, 1), 0.9, 1.0).fit(train)
        columns = block.fit_transform(train, target)
        return [columns, block.transform(new), block.transform(new[:1]), domain.proximity(new), domain.is_outside(new)]

    assert_same_bits(derive)


@pytest.mark.parametrize(("points", "lines"), [(POINTS, LINES), (POINTS, {}), ({}, LINES)])
def test_distances_to_landmarks(points: dict[str, str], lines: dict[str, str]) -> None:
    random = np.random.default_rng(2)
    rows = np.vstack([rows_of(random, places, 50, 1) for places in PLACES])
    rows[3, 0], rows[4, 1] = np.nan, np.nan

    def derive() -> list[NDArray[Any]]:
        block = LandmarkDistances(schema_of(1), points, lines).fit(rows[10:], rows[10:, 0])
        with np.errstate(invalid="ignore"):  # of the segment without a length
            return [block.transform(rows), block.transform(rows[:1])]

    assert_same_bits(derive)


@pytest.mark.parametrize("coordinate", [np.nan, np.inf])
def test_a_coordinate_that_is_no_finite_number_is_an_error_with_and_without_kernels(coordinate: float) -> None:
    def search() -> None:
        with pytest.raises(ValueError, match="finite"):
            KdTree(scattered(np.random.default_rng(0), 20)).query(np.array([[45.0, 5.0], [45.0, coordinate]]), 2)

    search()
    with without_kernels():
        search()


def test_fewer_points_than_neighbours_are_an_error_with_and_without_kernels() -> None:
    def search() -> None:
        with pytest.raises(ConfigError, match="at least 4 training rows"):
            KdTree(scattered(np.random.default_rng(0), 3)).query(np.zeros((1, 2)), 4)

    search()
    with without_kernels():
        search()


def test_arrays_that_do_not_fit_the_parameters_are_an_error_of_the_kernels() -> None:
    random = np.random.default_rng(0)
    block = NearestNeighbours(schema_of(2), **NEIGHBOURS).fit(rows_of(random, scattered, 40, 2), np.ones(40))
    block.arrays["targets"] = np.ones(3)  # as in a damaged bundle
    with pytest.raises(ValueError, match="out of range"):
        block.transform(rows_of(random, scattered, 3, 2))


def test_missing_kernels_are_announced_once(caplog: pytest.LogCaptureFixture) -> None:
    compiled.warn_not_compiled.cache_clear()
    with without_kernels(), caplog.at_level(logging.WARNING):
        for _ in range(2):
            KdTree(np.zeros((3, 2)))
    assert [record.message.partition(" is ")[0] for record in caplog.records] == [
        "The extension housing.features.spatial_kernels"
    ]
