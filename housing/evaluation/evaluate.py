"""Evaluation beyond the test RMSE: error by slice, bootstrap interval, and performance far from the training data."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.core.errors import BundleError, ConfigError, TargetError
from housing.data.split import Rows, Split, split
from housing.data.table import Table
from housing.evaluation.bootstrap import MIN_UNITS, bootstrap_interval
from housing.evaluation.limitations import find_limitations
from housing.evaluation.results import DistanceBand, Evaluation, HarderSplitResult, IntervalCoverage
from housing.evaluation.slices import (
    CONFIDENCE,
    N_RESAMPLES,
    SliceSettings,
    audit_columns,
    compute_rmse,
    make_slices,
    quintiles,
    score_slices,
    select,
    slice_columns,
)
from housing.features.spatial_index import SpatialIndex
from housing.fitting import estimators, fitting
from housing.fitting.encoding_choice import choose_encoding
from housing.fitting.fitting import FitSettings
from housing.schema.column import Vector
from housing.schema.declaration import AUDIT
from housing.scoring.metrics import score
from housing.scoring.ranking_metric import RankingMetric
from housing.streaming.streamed_table import StreamedTable

NOMINAL_COVERAGE = 0.9
BAND_STEPS = (1.0, 2.0, 5.0)  # band edges in km, times each power of ten
MIN_BAND_ROWS = 50  # a band of fewer rows is merged with the next


@dataclass(frozen=True)
class EvaluationSettings:
    """How a model is evaluated: the slices, and the configs of harder splits by name."""

    slices: SliceSettings = field(default_factory=SliceSettings)
    harder_splits: Mapping[str, DictConfig] = field(default_factory=dict)

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Self:
        """Read `harder_splits` and `data` of a command's config."""
        splits = {str(name): cfg.harder_splits[name] for name in cfg.harder_splits}
        return cls(SliceSettings.from_config(cfg.data), splits)


def evaluate(settings: EvaluationSettings, run_cfg: DictConfig, table: Table, parts: Split, bundle: Bundle) -> Evaluation:
    """Score a bundle on the test rows and by slice, and refit its config (`run_cfg`) on harder splits."""
    table = table.encoded_as(bundle.schema)
    predicted, actual = bundle.predict(table.matrix[parts.test]), table.target[parts.test]
    weight, skipped = table.weight_of(parts.test), list[str]()
    units = parts.units_of(parts.test)
    interval = bootstrap_interval(predicted - actual, "rmse", CONFIDENCE, N_RESAMPLES, 0, units, weight)
    lower, upper = interval or (None, None)
    if interval is None:
        n_units, unit_name = (len(actual), "test rows") if units is None else (units.count(), units.name)
        skipped.append(f"interval of the RMSE: needs at least {MIN_UNITS} {unit_name} (got {n_units:,})")
    unread = {column.name for column in table.schema.columns if column.role == AUDIT} - {c.name for c in audit_columns(table)}
    skipped += [f"groups of {name}: engine=stream and dask do not read the column" for name in sorted(unread)]
    evaluation = Evaluation(
        rows=len(actual),
        scores=score(predicted, actual, weight),
        rmse_lower=lower,
        rmse_upper=upper,
        slices=score_slices(make_slices(table, parts.test, settings.slices), predicted, actual, weight, units),
        harder_splits=_evaluate_harder_splits(settings.harder_splits, run_cfg, table, parts, skipped),
        coverage=_interval_coverage(settings.slices, table, parts, bundle, skipped),
        limitations=[],
        skipped=skipped,
    )
    evaluation.limitations.extend(find_limitations(evaluation, table.schema.target))
    return evaluation


def _evaluate_harder_splits(
    splits: Mapping[str, DictConfig], run_cfg: DictConfig, table: Table, parts: Split, skipped: list[str]
) -> list[HarderSplitResult]:
    if isinstance(table, StreamedTable):
        skipped.append(f"{' and '.join(splits)} splits: engine=stream and dask do not divide a table by group or location")
        return []
    if table.schema.coordinates() is None and not any(column.role == "group" for column in table.schema.columns):
        lacks = f"table {table.schema.name} has no coordinates, and no column with the role group"
        skipped.append(f"{' and '.join(splits)} splits: {lacks}")
        return []
    results = []
    for name, split_cfg in splits.items():
        try:
            harder = within(parts, split(table, split_cfg))
            if harder.fingerprint() == parts.fingerprint():
                skipped.append(f"{name} split: it is the split of the run")
            else:
                results.append(_evaluate_split(name, run_cfg, table, harder))
        except TargetError:  # the run was fitted with this config, so somebody has changed it, or a library has
            raise
        except ConfigError as error:  # the table lacks the columns, is too small, or covers a single area
            skipped.append(f"{name} split: {error}")
    return results


def within(parts: Split, harder: Split) -> Split:
    """Return a harder split that keeps together what the run's own split keeps together, such as customers, or past and future.

    It tests a part of the run's test rows, and takes the rows near them from the run's training and validation rows.
    """
    if parts.units is None:
        return harder
    test = np.intersect1d(parts.test, harder.test)
    if not test.size:
        raise ConfigError("its test rows and those of the run have no row in common")
    train, valid = (np.setdiff1d(rows, harder.test) for rows in (parts.train, parts.valid))
    return Split(train, valid, test, harder.units)


def _evaluate_split(name: str, run_cfg: DictConfig, table: Table, parts: Split) -> HarderSplitResult:
    predicted, actual = refit_config(run_cfg, table, parts).predict(table.matrix[parts.test]), table.target[parts.test]
    weight = table.weight_of(parts.test)
    training_rows = np.concatenate([parts.train, parts.valid]) if run_cfg.refit else parts.train
    bands = [] if table.schema.coordinates() is None else _distance_bands(table, training_rows, parts.test, predicted - actual)
    return HarderSplitResult(name, len(training_rows), len(actual), score(predicted, actual, weight), bands)


def _distance_bands(table: Table, training_rows: Rows, rows: Rows, error: Vector) -> list[DistanceBand]:
    return score_by_distance(distance_to_training(table, training_rows, rows), error, table.weight_of(rows))


def refit_config(cfg: DictConfig, table: Table, parts: Split) -> estimators.Model:
    """Fit a run's config on another split, in the same way as the run.

    With `refit`, boosting rounds and the transform of the target are found on the validation rows. Then the model is fitted on
    the training and validation rows.
    """
    metric = RankingMetric.from_config(cfg)
    settings = choose_encoding(FitSettings.from_config(cfg), table, parts, metric).settings
    if not cfg.refit:
        return fitting.fit(settings, table, parts.train, parts.valid)
    first = fitting.fit(settings, table, parts.train, parts.valid) if settings.needs_validation else None
    return fitting.fit(settings, table, np.sort(np.concatenate([parts.train, parts.valid])), first=first)


def distance_to_training(table: Table, training_rows: Rows, rows: Rows) -> Vector:
    """Return the distance in km from each of `rows` to the nearest training row."""
    coordinates = table.schema.coordinates()
    assert coordinates is not None
    return SpatialIndex(coordinates).fit(table.matrix[training_rows], unique=True).distance_to_nearest(table.matrix[rows])


def score_by_distance(km: Vector, error: Vector, weight: Vector | None) -> list[DistanceBand]:
    """Score rows in bands of their distance to the nearest training row, each of at least 50 rows."""
    bands = []
    for min_km, max_km in pairwise([-1.0, *_band_edges(km), np.inf]):
        inside = np.flatnonzero((km > min_km) & (km <= max_km))
        if inside.size:
            end, weights = None if np.isinf(max_km) else max_km, select(weight, inside)
            rmse, mean_error = compute_rmse(error[inside], weights), float(np.average(error[inside], weights=weights))
            bands.append(DistanceBand(max(min_km, 0.0), end, len(inside), rmse, mean_error))
    return bands


def _band_edges(km: Vector) -> Iterator[float]:
    """Yield round distances with enough rows between them and beyond the last one."""
    largest = float(km.max())
    powers = range(-3, 1 + max(0, int(np.ceil(np.log10(largest)))) if largest > 0 else 0)
    rows_below = 0
    for edge in (step * 10.0**power for power in powers for step in BAND_STEPS):
        rows_within = int((km <= edge).sum())
        if rows_within - rows_below >= MIN_BAND_ROWS and len(km) - rows_within >= MIN_BAND_ROWS:
            rows_below = rows_within
            yield edge


def _interval_coverage(
    settings: SliceSettings, table: Table, parts: Split, bundle: Bundle, skipped: list[str]
) -> list[IntervalCoverage]:
    """Measure interval coverage over all test rows and over the quintiles of the first slice column."""
    try:
        _, lower, upper = bundle.predict_interval(table.matrix[parts.test], NOMINAL_COVERAGE)
    except (BundleError, ConfigError) as error:
        skipped.append(f"intervals: {error}")
        return []
    actual, weight = table.target[parts.test], table.weight_of(parts.test)
    name = slice_columns(table, settings)[0]
    inside, width = (lower <= actual) & (actual <= upper), upper - lower
    column = table.matrix[parts.test, table.schema.index(name)]
    slices = [
        ("all", "all rows", np.ones(len(actual), dtype=bool)),
        *((name, quintile, mask) for quintile, mask in quintiles(column)),
    ]

    def mean(values: NDArray[Any], mask: NDArray[np.bool_]) -> float:
        return float(np.average(values[mask], weights=select(weight, mask)))

    return [
        IntervalCoverage(kind, slice_name, int(mask.sum()), mean(inside, mask), mean(width, mask))
        for kind, slice_name, mask in slices
    ]
