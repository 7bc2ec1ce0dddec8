"""Slices of the test rows (regions, price bands, quintiles of columns, capped rows) and the model's error in each."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.data.split import Rows
from housing.data.table import Table, read_key
from housing.data.units import Units
from housing.evaluation.bootstrap import bootstrap_interval
from housing.features.landmarks import parse_coordinates
from housing.features.rank_correlation import rank_correlations
from housing.features.spatial_index import project_to_km
from housing.schema.column import Column, Matrix, Vector
from housing.schema.declaration import AUDIT

MAX_RANKED_ROWS = 1_000_000  # of a larger table, as many rows, evenly spread, choose the column to slice by
QUINTILES = (0.2, 0.4, 0.6, 0.8)
REGION, TARGET_BAND, CAPPED = "region", "price band", "capped"
MAX_GROUPS = 20  # of an audit column: the groups with most rows; the others are one slice
N_RESAMPLES, CONFIDENCE = 1000, 0.95  # of the bootstrap intervals
QUADRANTS = ("south-west", "south-east", "north-west", "north-east")


@dataclass(frozen=True)
class SliceSettings:
    """How a table is sliced.

    Attributes
    ----------
    columns
        Columns to slice by, or None for the column most correlated with the target.
    landmarks
        Coordinates ("latitude longitude") by name. A row belongs to the region of its nearest landmark.
    """

    columns: tuple[str, ...] | None = None
    landmarks: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_config(cls, data: Mapping[str, Any]) -> Self:
        """Read the settings of a table's config.

        Raises
        ------
        ConfigError
            If the list of columns is empty.
        """
        columns = data.get("slice_columns")
        if columns is not None and not columns:
            raise ConfigError(
                "data.slice_columns is empty; expected at least one column name."
                " Remove the key to slice by the column most correlated with the target."
            )
        landmarks = (data.get("landmarks") or {}).get("points") or {}
        names = None if columns is None else tuple(map(str, columns))
        return cls(names, {str(name): str(point) for name, point in landmarks.items()})


@dataclass(frozen=True)
class SliceScore:
    """Errors of a model in one slice.

    Attributes
    ----------
    rows
        Number of rows. The scores are weighted if the table has weights.
    mean_error
        Mean of predicted minus actual.
    ratio
        RMSE of the slice divided by the RMSE of all rows.
    is_group
        Whether the slice is a group of a column with the role audit.
    rmse_lower, rmse_upper
        95 % bootstrap interval of the RMSE of a group; None for other slices and for too few rows.
    """

    kind: str
    name: str
    rows: int
    rmse: float
    mean_error: float
    ratio: float
    is_group: bool = False
    rmse_lower: float | None = None
    rmse_upper: float | None = None


@dataclass(frozen=True)
class SliceMask:
    """A slice of the rows; `mask` is True for the rows that belong to it. See `SliceScore` for `is_group`."""

    kind: str
    name: str
    mask: NDArray[np.bool_]
    is_group: bool = False


def score_slices(
    slices: list[SliceMask], predicted: Vector, actual: Vector, weight: Vector | None, units: Units | None = None
) -> list[SliceScore]:
    """Score predictions in each slice of their rows. `units` are those of the rows, or None if each row is one."""
    error = predicted - actual
    overall = compute_rmse(error, weight)
    return [_score_slice(slice_, error, weight, units, overall) for slice_ in slices]


def _score_slice(
    slice_: SliceMask, all_errors: Vector, all_weights: Vector | None, units: Units | None, overall: float
) -> SliceScore:
    error, weight = all_errors[slice_.mask], select(all_weights, slice_.mask)
    rmse, mean_error = compute_rmse(error, weight), float(np.average(error, weights=weight))
    lower, upper = None, None
    if slice_.is_group:  # only these: an interval of all rows takes 20 s for a million of them
        own_units = None if units is None else units.take(np.flatnonzero(slice_.mask))
        lower, upper = bootstrap_interval(error, "rmse", CONFIDENCE, N_RESAMPLES, 0, own_units, weight) or (None, None)
    ratio = rmse / overall if overall else 1.0
    return SliceScore(slice_.kind, slice_.name, len(error), rmse, mean_error, ratio, slice_.is_group, lower, upper)


def compute_rmse(error: Vector, weight: Vector | None) -> float:
    """Return the root mean squared error. None: all rows count alike."""
    return float(np.sqrt(np.average(np.square(error), weights=weight)))


def select(weight: Vector | None, rows: Any) -> Vector | None:
    """Return the weights of some rows, by index or mask, or None if all rows count alike."""
    return None if weight is None else weight[rows]


def make_slices(table: Table, rows: Rows, settings: SliceSettings) -> list[SliceMask]:
    """Slice rows by region, target band, columns, groups of audit columns and caps.

    A kind that would put all rows into a single slice is omitted.
    """
    matrix, actual = table.matrix[rows], table.target[rows]
    columns = [table.schema.index(name) for name in slice_columns(table, settings)]
    kinds = [
        _region_slices(table, matrix, settings.landmarks),
        _quintile_slices(TARGET_BAND, actual),
        *(_column_slices(table.schema.features[column], matrix[:, column]) for column in columns),
        *(_group_slices(column, table.identifiers[column.name][rows]) for column in audit_columns(table)),
    ]
    return [slice_ for kind in kinds if len(kind) > 1 for slice_ in kind] + _capped_slices(table.schema.target, actual)


def audit_columns(table: Table) -> list[Column]:
    """Return the columns with the role audit whose values the table has: engine=stream and dask do not read them."""
    return [column for column in table.schema.columns if column.role == AUDIT and column.name in table.identifiers]


def _group_slices(column: Column, keys: NDArray[np.object_]) -> list[SliceMask]:
    """Return a slice for each group, the largest first, or for each quintile of a number with many values."""
    values = [None if key is None else read_key(column, key) for key in keys.tolist()]
    counts = Counter(value for value in values if value is not None)
    if column.is_number and len(counts) > MAX_GROUPS:
        numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        return [SliceMask(column.name, name, mask, is_group=True) for name, mask in quintiles(numbers)]
    names = {value: str(value) for value, _ in counts.most_common(MAX_GROUPS)}
    others = f"(other, {len(counts) - len(names):,} groups)"
    labels = np.array(["missing" if value is None else names.get(value, others) for value in values], dtype=np.object_)
    masks = {name: labels == name for name in [*names.values(), others, "missing"]}
    return [SliceMask(column.name, name, mask, is_group=True) for name, mask in masks.items() if mask.any()]


def slice_columns(table: Table, settings: SliceSettings) -> list[str]:
    """Return the columns to slice by: the declared ones, or the numeric column most correlated with the target."""
    return [most_correlated_column(table)] if settings.columns is None else list(settings.columns)


def most_correlated_column(table: Table) -> str:
    """Return the name of the numeric column with the highest rank correlation with the target."""
    numeric = [index for index, column in enumerate(table.schema.features) if column.is_number]
    if not numeric:
        return table.schema.features[0].name
    rows = np.linspace(0, len(table) - 1, min(len(table), MAX_RANKED_ROWS)).astype(np.intp)
    correlations = rank_correlations(table.matrix[rows][:, numeric], table.target[rows])
    return table.schema.features[numeric[int(np.argmax(correlations))]].name


def quintiles(values: Vector) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Cut values at their quintiles and yield the range and the mask of each part, then a part of missing values.

    Equal values stay together, so there may be fewer than five parts.
    """
    missing = np.isnan(values)
    edges = np.empty(0) if missing.all() else np.unique(np.quantile(values[~missing], QUINTILES))
    part = np.where(missing, -1, np.searchsorted(edges, values, side="left"))
    for number in range(len(edges) + 1):
        inside = values[part == number]
        if inside.size:
            yield f"{inside.min():.4g} to {inside.max():.4g}", part == number
    if missing.any():
        yield "missing", missing


def _quintile_slices(kind: str, values: Vector) -> list[SliceMask]:
    return [SliceMask(kind, name, mask) for name, mask in quintiles(values)]


def _column_slices(column: Column, values: Vector) -> list[SliceMask]:
    if column.is_continuous:
        return _quintile_slices(column.name, values)
    levels = [(str(column.decode(level)), values == level) for level in np.unique(values[~np.isnan(values)])]
    return [SliceMask(column.name, name, mask) for name, mask in [*levels, ("missing", np.isnan(values))] if mask.any()]


def _region_slices(table: Table, matrix: Matrix, landmarks: Mapping[str, str]) -> list[SliceMask]:
    """Slice rows by their nearest landmark, or by the quadrant of the map if no landmarks are declared."""
    coordinates = table.schema.coordinates()
    if coordinates is None:
        return []
    degrees = matrix[:, coordinates]
    if landmarks:
        names = tuple(name.replace("_", " ") for name in landmarks)
        latitude = float(table.matrix[:, coordinates[0]].mean())
        landmark_km = project_to_km(parse_coordinates(", ".join(landmarks.values())), latitude)
        region = np.square(project_to_km(degrees, latitude)[:, None] - landmark_km).sum(axis=2).argmin(axis=1)
    else:
        names = QUADRANTS
        north, east = (degrees >= np.median(table.matrix[:, coordinates], axis=0)).T
        region = 2 * north.astype(int) + east
    return [SliceMask(REGION, name, region == number) for number, name in enumerate(names) if (region == number).any()]


def _capped_slices(target: Column, actual: Vector) -> list[SliceMask]:
    """Return the rows whose target equals a declared bound: their true value may lie beyond it."""
    ends = [(f"at {end:.6g}", actual == end) for end in (target.min, target.max) if end is not None]
    return [SliceMask(CAPPED, name, mask) for name, mask in ends if mask.any()]
