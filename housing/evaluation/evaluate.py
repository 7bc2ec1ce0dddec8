"""What is known of a model beside its test RMSE: where it errs, how sure the figure is, how it does where nobody is near."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.core.errors import BundleError, ConfigError
from housing.data.split import Split, split
from housing.data.table import Table
from housing.evaluation.limitations import find_limitations
from housing.evaluation.results import DistanceBand, Evaluation, HarderSplitResult, IntervalCoverage
from housing.evaluation.slices import compute_rmse, make_slices, quintiles, score_slices, slice_columns
from housing.features.spatial_index import SpatialIndex
from housing.schema.column import Vector
from housing.training import estimator_specs, estimators, fitting
from housing.training.metrics import score

N_RESAMPLES, CONFIDENCE = 1000, 0.95


NOMINAL_COVERAGE = 0.9


BAND_STEPS = (1.0, 2.0, 5.0)  # of each power of ten, as edges in km


MIN_BAND_ROWS = 50  # a ring of fewer rows goes together with the next


def evaluate(cfg: DictConfig, run_cfg: DictConfig, table: Table, parts: Split, bundle: Bundle) -> Evaluation:
    """Score a bundle on the test rows, slice by slice, and its config (`made_from`) on splits that are harder.

    `cfg` has the splits as `honest`, and the table's `data`.
    """
    predicted, actual = bundle.predict(table.matrix[parts.test]), table.target[parts.test]
    left_out: list[str] = []
    low, high = rmse_interval(predicted - actual)
    found = Evaluation(
        rows=len(actual),
        scores=score(predicted, actual),
        rmse_lower=low,
        rmse_upper=high,
        slices=score_slices(make_slices(table, parts.test, cfg.data), predicted, actual),
        harder_splits=_evaluate_harder_splits(cfg.harder_splits, run_cfg, table, left_out),
        coverage=_interval_coverage(cfg.data, table, parts, bundle, left_out),
        limitations=[],
        skipped=left_out,
    )
    found.limitations.extend(find_limitations(found, table.schema.target))
    return found


def rmse_interval(error: Vector, n_resamples: int = N_RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Give the ends between which 95 % of the RMSEs of resampled rows lie.

    Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7 (1979) 1-26; the percentile interval.
    """
    random, squares = np.random.default_rng(seed), np.square(error)
    found = [np.sqrt(squares[random.integers(len(squares), size=len(squares))].mean()) for _ in range(n_resamples)]
    low, high = np.quantile(found, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return float(low), float(high)


def _evaluate_harder_splits(splits: DictConfig, run_cfg: DictConfig, table: Table, skipped: list[str]) -> list[HarderSplitResult]:
    names = [str(name) for name in splits]
    if table.schema.coordinates() is None:
        skipped.append(f"{' and '.join(names)} splits: table {table.schema.name} has no coordinates")
        return []
    found = []
    for name in names:
        try:
            found.append(_evaluate_split(name, run_cfg, table, split(table, splits[name])))
        except ConfigError as error:  # a small table, or one of a single town
            skipped.append(f"{name} split: {error}")
    return found


def _evaluate_split(name: str, run_cfg: DictConfig, table: Table, parts: Split) -> HarderSplitResult:
    predicted, actual = refit_config(run_cfg, table, parts).predict(table.matrix[parts.test]), table.target[parts.test]
    known = np.concatenate([parts.train, parts.valid]) if run_cfg.refit else parts.train
    rings = score_by_distance(distance_to_training(table, known, parts.test), predicted - actual)
    return HarderSplitResult(name, len(known), len(actual), score(predicted, actual), rings)


def refit_config(cfg: DictConfig, table: Table, parts: Split) -> estimators.Model:
    """Fit on a split as a run does: with `refit` on training and validation rows, with the rounds found on validation rows."""
    if not cfg.refit:
        return fitting.fit(cfg, table, parts.train, parts.valid)
    stops = any(one.early_stopping_rounds for one in estimator_specs.estimator_specs(cfg))
    rounds = fitting.fit(cfg, table, parts.train, parts.valid).best_rounds if stops else {}
    return fitting.fit(cfg, table, np.sort(np.concatenate([parts.train, parts.valid])), rounds=rounds)


def distance_to_training(table: Table, training_rows: NDArray[np.intp], rows: NDArray[np.intp]) -> Vector:
    """Give the km from each of some rows to the nearest of the known ones."""
    coordinates = table.schema.coordinates()
    assert coordinates is not None
    return SpatialIndex(coordinates).fit(table.matrix[training_rows], unique=True).distance_to_nearest(table.matrix[rows])


def score_by_distance(km: Vector, error: Vector) -> list[DistanceBand]:
    """Score rows by how far the nearest training row is, in rings of 50 rows and more."""
    edges = list(_band_edges(km))
    found = []
    for above, up_to in pairwise([-1.0, *edges, np.inf]):
        inside = error[(km > above) & (km <= up_to)]
        if inside.size:
            end = None if np.isinf(up_to) else up_to
            found.append(DistanceBand(max(above, 0.0), end, len(inside), compute_rmse(inside), float(inside.mean())))
    return found


def _band_edges(km: Vector) -> Iterator[float]:
    """Give round numbers that leave enough rows on either side, and between each other."""
    largest = float(km.max())
    powers = range(-3, 1 + max(0, int(np.ceil(np.log10(largest)))) if largest > 0 else 0)
    below = 0
    for edge in (step * 10.0**power for power in powers for step in BAND_STEPS):
        nearer = int((km <= edge).sum())
        if nearer - below >= MIN_BAND_ROWS and len(km) - nearer >= MIN_BAND_ROWS:
            below = nearer
            yield edge


def _interval_coverage(
    data: DictConfig, table: Table, parts: Split, bundle: Bundle, skipped: list[str]
) -> list[IntervalCoverage]:
    """Count how many targets lie in their interval, over all test rows and over fifths of the first sliced column."""
    try:
        _, lower, upper = bundle.predict_interval(table.matrix[parts.test], NOMINAL_COVERAGE)
    except (BundleError, ConfigError) as error:
        skipped.append(f"intervals: {error}")
        return []
    actual = table.target[parts.test]
    name = slice_columns(table, data)[0]
    inside, width = (lower <= actual) & (actual <= upper), upper - lower
    parts_of_column = quintiles(table.matrix[parts.test, table.schema.index(name)])
    where = [("all", "all rows", np.ones(len(actual), dtype=bool)), *((name, part, mask) for part, mask in parts_of_column)]
    return [
        IntervalCoverage(kind, part, int(mask.sum()), float(inside[mask].mean()), float(width[mask].mean()))
        for kind, part, mask in where
    ]
