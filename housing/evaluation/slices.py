"""Parts of the rows, and how far a model is off in each: regions, price bands, fifths of columns, capped rows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from housing.core.errors import ConfigError
from housing.data.split import Rows
from housing.data.table import Table
from housing.features.landmarks import parse_coordinates
from housing.features.spatial_index import project_to_km
from housing.schema.column import Column, Matrix, Vector

QUINTILES = (0.2, 0.4, 0.6, 0.8)


REGION, TARGET_BAND, CAPPED = "region", "price band", "capped"


QUADRANTS = ("south-west", "south-east", "north-west", "north-east")


@dataclass(frozen=True)
class SliceScore:
    """Some of the rows, and how far predictions are off there."""

    kind: str
    name: str
    rows: int
    rmse: float
    mean_error: float  # predicted - actual
    ratio: float  # RMSE in units of that of all rows


@dataclass(frozen=True)
class SliceMask:
    """Some of the rows. `where` says of each whether it is one of them."""

    kind: str
    name: str
    mask: NDArray[np.bool_]


def score_slices(masks: list[SliceMask], predicted: Vector, actual: Vector) -> list[SliceScore]:
    """Score predictions in each group of their rows."""
    error = predicted - actual
    overall = compute_rmse(error)
    scored = ((group, error[group.mask]) for group in masks)
    return [
        SliceScore(
            group.kind,
            group.name,
            len(off),
            compute_rmse(off),
            float(off.mean()),
            compute_rmse(off) / overall if overall else 1.0,
        )
        for group, off in scored
    ]


def compute_rmse(error: Vector) -> float:
    """Give the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(error))))


def make_slices(table: Table, rows: Rows, data: DictConfig) -> list[SliceMask]:
    """Cut rows in groups, of several kinds. A kind that would put all rows into one group is left out."""
    matrix, actual = table.matrix[rows], table.target[rows]
    columns = {name: table.schema.index(name) for name in slice_columns(table, data)}
    kinds = [
        _region_slices(table, matrix, data.get("landmarks")),
        _quintile_slices(TARGET_BAND, actual),
        *(_column_slices(table.schema.features[place], matrix[:, place]) for place in columns.values()),
    ]
    return [group for kind in kinds if len(kind) > 1 for group in kind] + _capped_slices(table.schema.target, actual)


def slice_columns(table: Table, data: DictConfig) -> list[str]:
    """Give the columns that slices are made of: the declared ones, or else the one whose ranks go best with the target."""
    declared = data.get("slice_columns")
    if declared is None:
        return [most_correlated_column(table)]
    if not declared:
        raise ConfigError("data.slice_columns is empty; allowed: names of columns, or no slices at all for the leading one")
    return [str(name) for name in declared]


def most_correlated_column(table: Table) -> str:
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


def quintiles(values: Vector) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Cut values at their quintiles. Equal values stay together, so there may be fewer parts than five."""
    edges = np.unique(np.quantile(values[~np.isnan(values)], QUINTILES)) if (~np.isnan(values)).any() else np.empty(0)
    part = np.where(np.isnan(values), -1, np.searchsorted(edges, values, side="left"))
    for number in range(len(edges) + 1):
        inside = values[part == number]
        if inside.size:
            yield f"{inside.min():.4g} to {inside.max():.4g}", part == number
    if (part == -1).any():
        yield "missing", part == -1


def _quintile_slices(kind: str, values: Vector) -> list[SliceMask]:
    return [SliceMask(kind, name, where) for name, where in quintiles(values)]


def _column_slices(column: Column, values: Vector) -> list[SliceMask]:
    if column.is_number:
        return _quintile_slices(column.name, values)
    named = [(str(column.decode(level)), values == level) for level in np.unique(values[~np.isnan(values)])]
    return [SliceMask(column.name, name, where) for name, where in [*named, ("missing", np.isnan(values))] if where.any()]


def _region_slices(table: Table, matrix: Matrix, places: Mapping[str, Mapping[str, str]] | None) -> list[SliceMask]:
    """Tell rows apart by the nearest declared place, or else by the side of the middle of the map on which they lie."""
    coordinates = table.schema.coordinates()
    if coordinates is None:
        return []
    degrees = matrix[:, coordinates]
    points = (places or {}).get("points") or {}
    if points:
        names = tuple(name.replace("_", " ") for name in points)
        latitude = float(table.matrix[:, coordinates[0]].mean())
        there = project_to_km(parse_coordinates(", ".join(points.values())), latitude)
        region = np.square(project_to_km(degrees, latitude)[:, None] - there).sum(axis=2).argmin(axis=1)
    else:
        names = QUADRANTS
        north, east = (degrees >= np.median(table.matrix[:, coordinates], axis=0)).T
        region = 2 * north.astype(int) + east
    return [SliceMask(REGION, name, region == number) for number, name in enumerate(names) if (region == number).any()]


def _capped_slices(target: Column, actual: Vector) -> list[SliceMask]:
    """Give the rows whose target is as small, or as large, as is declared: it may be farther out in truth."""
    ends = [(f"at {end:.6g}", actual == end) for end in (target.min, target.max) if end is not None]
    return [SliceMask(CAPPED, name, where) for name, where in ends if where.any()]
