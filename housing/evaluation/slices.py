"""Parts of the rows, and how far a model is off in each: regions, price bands, fifths of columns, capped rows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from housing.core.errors import ConfigError
from housing.data.split import Rows
from housing.data.table import Table
from housing.features.landmarks import read_places
from housing.features.spatial_index import to_km
from housing.schema.column import Column, Matrix, Vector

FIFTHS = (0.2, 0.4, 0.6, 0.8)


REGION, BAND, CAPPED = "region", "price band", "capped"


QUADRANTS = ("south-west", "south-east", "north-west", "north-east")


@dataclass(frozen=True)
class Slice:
    """Some of the rows, and how far predictions are off there."""

    kind: str
    name: str
    rows: int
    rmse: float
    mean_error: float  # predicted - actual
    share: float  # RMSE in units of that of all rows


@dataclass(frozen=True)
class Group:
    """Some of the rows. `where` says of each whether it is one of them."""

    kind: str
    name: str
    where: NDArray[np.bool_]


def slices(groups: list[Group], predicted: Vector, actual: Vector) -> list[Slice]:
    """Score predictions in each group of their rows."""
    error = predicted - actual
    overall = rmse_of(error)
    scored = ((group, error[group.where]) for group in groups)
    return [
        Slice(group.kind, group.name, len(off), rmse_of(off), float(off.mean()), rmse_of(off) / overall if overall else 1.0)
        for group, off in scored
    ]


def rmse_of(error: Vector) -> float:
    """Give the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(error))))


def groups_of(table: Table, rows: Rows, data: DictConfig) -> list[Group]:
    """Cut rows in groups, of several kinds. A kind that would put all rows into one group is left out."""
    matrix, actual = table.matrix[rows], table.target[rows]
    columns = {name: table.schema.index(name) for name in sliced_by(table, data)}
    kinds = [
        _regions(table, matrix, data.get("places")),
        _fifths(BAND, actual),
        *(_by_column(table.schema.features[place], matrix[:, place]) for place in columns.values()),
    ]
    return [group for kind in kinds if len(kind) > 1 for group in kind] + _capped(table.schema.target, actual)


def sliced_by(table: Table, data: DictConfig) -> list[str]:
    """Give the columns that slices are made of: the declared ones, or else the one whose ranks go best with the target."""
    declared = data.get("slices")
    if declared is None:
        return [leading(table)]
    if not declared:
        raise ConfigError("data.slices is empty; allowed: names of columns, or no slices at all for the leading one")
    return [str(name) for name in declared]


def leading(table: Table) -> str:
    """Give the name of the number whose ranks go best with the target's."""
    from scipy.stats import rankdata  # pylint: disable=import-outside-toplevel  # a second that only this needs

    def strength(place: int) -> float:
        there = ~np.isnan(table.matrix[:, place])
        ranks, targets = rankdata(table.matrix[there, place]), rankdata(table.target[there])
        together = np.cov(ranks, targets) if there.sum() > 1 else np.zeros((2, 2))
        spread = float(np.sqrt(together[0, 0] * together[1, 1]))
        return abs(float(together[0, 1])) / spread if spread else 0.0

    numbers = [place for place, column in enumerate(table.schema.features) if column.is_number]
    return table.schema.features[max(numbers, key=strength, default=0)].name


def fifths(values: Vector) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Cut values at their quintiles. Equal values stay together, so there may be fewer parts than five."""
    edges = np.unique(np.quantile(values[~np.isnan(values)], FIFTHS)) if (~np.isnan(values)).any() else np.empty(0)
    part = np.where(np.isnan(values), -1, np.searchsorted(edges, values, side="left"))
    for number in range(len(edges) + 1):
        inside = values[part == number]
        if inside.size:
            yield f"{inside.min():.4g} to {inside.max():.4g}", part == number
    if (part == -1).any():
        yield "missing", part == -1


def _fifths(kind: str, values: Vector) -> list[Group]:
    return [Group(kind, name, where) for name, where in fifths(values)]


def _by_column(column: Column, values: Vector) -> list[Group]:
    if column.is_number:
        return _fifths(column.name, values)
    named = [(str(column.decode(level)), values == level) for level in np.unique(values[~np.isnan(values)])]
    return [Group(column.name, name, where) for name, where in [*named, ("missing", np.isnan(values))] if where.any()]


def _regions(table: Table, matrix: Matrix, places: Mapping[str, Mapping[str, str]] | None) -> list[Group]:
    """Tell rows apart by the nearest declared place, or else by the side of the middle of the map on which they lie."""
    coordinates = table.schema.coordinates()
    if coordinates is None:
        return []
    degrees = matrix[:, coordinates]
    points = (places or {}).get("points") or {}
    if points:
        names = tuple(name.replace("_", " ") for name in points)
        latitude = float(table.matrix[:, coordinates[0]].mean())
        there = to_km(read_places(", ".join(points.values())), latitude)
        region = np.square(to_km(degrees, latitude)[:, None] - there).sum(axis=2).argmin(axis=1)
    else:
        names = QUADRANTS
        north, east = (degrees >= np.median(table.matrix[:, coordinates], axis=0)).T
        region = 2 * north.astype(int) + east
    return [Group(REGION, name, region == number) for number, name in enumerate(names) if (region == number).any()]


def _capped(target: Column, actual: Vector) -> list[Group]:
    """Give the rows whose target is as small, or as large, as is declared: it may be farther out in truth."""
    ends = [(f"at {end:.6g}", actual == end) for end in (target.min, target.max) if end is not None]
    return [Group(CAPPED, name, where) for name, where in ends if where.any()]
