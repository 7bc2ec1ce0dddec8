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
from housing.evaluation.limitations import not_to_trust
from housing.evaluation.results import Covered, Elsewhere, Honest, Ring
from housing.evaluation.slices import fifths, groups_of, rmse_of, sliced_by, slices
from housing.features.spatial_index import Places
from housing.schema.column import Vector
from housing.training import estimator_specs, estimators, fitting
from housing.training.metrics import score

RESAMPLES, CERTAINTY = 1000, 0.95


COVERAGE = 0.9


STEPS = (1.0, 2.0, 5.0)  # of each power of ten, as edges in km


RING_ROWS = 50  # a ring of fewer rows goes together with the next


def evaluate(cfg: DictConfig, made_from: DictConfig, table: Table, parts: Split, bundle: Bundle) -> Honest:
    """Score a bundle on the test rows, slice by slice, and its config (`made_from`) on splits that are harder.

    `cfg` has the splits as `honest`, and the table's `data`.
    """
    predicted, actual = bundle.predict(table.matrix[parts.test]), table.target[parts.test]
    left_out: list[str] = []
    low, high = bootstrap(predicted - actual)
    found = Honest(
        rows=len(actual),
        scores=score(predicted, actual),
        low=low,
        high=high,
        slices=slices(groups_of(table, parts.test, cfg.data), predicted, actual),
        elsewhere=_elsewhere(cfg.honest, made_from, table, left_out),
        coverage=_coverage(cfg.data, table, parts, bundle, left_out),
        not_to_trust=[],
        left_out=left_out,
    )
    found.not_to_trust.extend(not_to_trust(found, table.schema.target))
    return found


def bootstrap(error: Vector, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Give the ends between which 95 % of the RMSEs of resampled rows lie.

    Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7 (1979) 1-26; the percentile interval.
    """
    random, squares = np.random.default_rng(seed), np.square(error)
    found = [np.sqrt(squares[random.integers(len(squares), size=len(squares))].mean()) for _ in range(resamples)]
    low, high = np.quantile(found, ((1 - CERTAINTY) / 2, (1 + CERTAINTY) / 2))
    return float(low), float(high)


def _elsewhere(splits: DictConfig, made_from: DictConfig, table: Table, left_out: list[str]) -> list[Elsewhere]:
    names = [str(name) for name in splits]
    if table.schema.coordinates() is None:
        left_out.append(f"{' and '.join(names)} splits: table {table.schema.name} has no coordinates")
        return []
    found = []
    for name in names:
        try:
            found.append(_fitted_on(name, made_from, table, split(table, splits[name])))
        except ConfigError as error:  # a small table, or one of a single town
            left_out.append(f"{name} split: {error}")
    return found


def _fitted_on(name: str, made_from: DictConfig, table: Table, parts: Split) -> Elsewhere:
    predicted, actual = fit_as(made_from, table, parts).predict(table.matrix[parts.test]), table.target[parts.test]
    known = np.concatenate([parts.train, parts.valid]) if made_from.refit else parts.train
    rings = by_distance(to_nearest(table, known, parts.test), predicted - actual)
    return Elsewhere(name, len(known), len(actual), score(predicted, actual), rings)


def fit_as(cfg: DictConfig, table: Table, parts: Split) -> estimators.Model:
    """Fit on a split as a run does: with `refit` on training and validation rows, with the rounds found on validation rows."""
    if not cfg.refit:
        return fitting.fit(cfg, table, parts.train, parts.valid)
    stops = any(one.stopping for one in estimator_specs.asked(cfg))
    rounds = fitting.fit(cfg, table, parts.train, parts.valid).rounds if stops else {}
    return fitting.fit(cfg, table, np.sort(np.concatenate([parts.train, parts.valid])), rounds=rounds)


def to_nearest(table: Table, known: NDArray[np.intp], rows: NDArray[np.intp]) -> Vector:
    """Give the km from each of some rows to the nearest of the known ones."""
    coordinates = table.schema.coordinates()
    assert coordinates is not None
    return Places(coordinates).fit(table.matrix[known], once=True).distance(table.matrix[rows])


def by_distance(km: Vector, error: Vector) -> list[Ring]:
    """Score rows by how far the nearest training row is, in rings of 50 rows and more."""
    edges = list(_edges(km))
    found = []
    for above, up_to in pairwise([-1.0, *edges, np.inf]):
        inside = error[(km > above) & (km <= up_to)]
        if inside.size:
            end = None if np.isinf(up_to) else up_to
            found.append(Ring(max(above, 0.0), end, len(inside), rmse_of(inside), float(inside.mean())))
    return found


def _edges(km: Vector) -> Iterator[float]:
    """Give round numbers that leave enough rows on either side, and between each other."""
    largest = float(km.max())
    powers = range(-3, 1 + max(0, int(np.ceil(np.log10(largest)))) if largest > 0 else 0)
    below = 0
    for edge in (step * 10.0**power for power in powers for step in STEPS):
        nearer = int((km <= edge).sum())
        if nearer - below >= RING_ROWS and len(km) - nearer >= RING_ROWS:
            below = nearer
            yield edge


def _coverage(data: DictConfig, table: Table, parts: Split, bundle: Bundle, left_out: list[str]) -> list[Covered]:
    """Count how many targets lie in their interval, over all test rows and over fifths of the first sliced column."""
    try:
        _, lower, upper = bundle.predict_interval(table.matrix[parts.test], COVERAGE)
    except (BundleError, ConfigError) as error:
        left_out.append(f"intervals: {error}")
        return []
    actual = table.target[parts.test]
    name = sliced_by(table, data)[0]
    inside, width = (lower <= actual) & (actual <= upper), upper - lower
    parts_of_column = fifths(table.matrix[parts.test, table.schema.index(name)])
    where = [("all", "all rows", np.ones(len(actual), dtype=bool)), *((name, part, mask) for part, mask in parts_of_column)]
    return [
        Covered(kind, part, int(mask.sum()), float(inside[mask].mean()), float(width[mask].mean())) for kind, part, mask in where
    ]
