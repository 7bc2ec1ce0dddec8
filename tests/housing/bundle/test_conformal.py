"""Conformal intervals: they have the requested coverage, and an impossible coverage is an error."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from housing.bundle.bundle import Bundle
from housing.bundle.conformal import Calibration, Interval
from housing.core.errors import BundleError, ConfigError
from housing.data.split import split
from housing.data.table import Table
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema
from housing.scoring.holdout import HoldoutPredictions
from housing.training.build import BuildSettings, build
from tests.support.tables import config

OPEN = Schema.from_dict({"name": "t", "columns": {"x": {"type": "float"}, "y": {"type": "float", "role": "target"}}})
BOUND = Schema.from_dict(
    {"name": "t", "columns": {"x": {"type": "float"}, "y": {"type": "float", "role": "target", "min": 0, "max": 1}}}
)
COVERAGES = (0.1, 0.5, 0.8, 0.9, 0.95, 0.99)


class ProportionalError:
    """An error model that predicts errors proportional to the first column."""

    def predict(self, columns: Matrix) -> Vector:
        """Return the logarithm of the first column."""
        return np.asarray(np.log(columns[:, 0]))


def rows(count: int, seed: int) -> tuple[Matrix, Vector]:
    """Return rows and their residuals: x times a random number with heavy tails."""
    random = np.random.default_rng(seed)
    x = random.uniform(0.1, 2.0, count)
    return x[:, None], x * random.standard_t(4, count)


def calibrated_interval(count: int, seed: int = 0) -> Interval:
    """Return an interval calibrated on this number of rows."""
    x, residuals = rows(count, seed)
    return Interval(Calibration(residuals / x[:, 0]), ProportionalError())


@pytest.mark.parametrize("coverage", COVERAGES)
def test_the_share_of_targets_inside_equals_the_coverage(coverage: float) -> None:
    x, residuals = rows(20_000, seed=1)
    lower, upper = calibrated_interval(2000).bounds(OPEN, x, np.zeros(len(x)), coverage)
    inside = (lower <= residuals) & (residuals <= upper)
    assert inside.mean() == pytest.approx(coverage, abs=0.03)
    small = x[:, 0] < 0.5  # the width follows the scale, so the coverage also holds for subsets
    assert inside[small].mean() == pytest.approx(coverage, abs=0.04)


@pytest.mark.parametrize("count", [14, 19, 49])
def test_the_mean_coverage_is_not_below_nominal_with_few_calibration_rows(count: int) -> None:
    """The guarantee of split conformal prediction: the mean coverage is at least nominal, and at most 2 / (n + 1) above it."""
    covered = []
    for seed in range(1000):
        x, residuals = rows(200, seed=seed)
        lower, upper = calibrated_interval(count, seed + 1000).bounds(OPEN, x, np.zeros(len(x)), 0.85)
        covered.append(((lower <= residuals) & (residuals <= upper)).mean())
    assert 0.85 - 0.01 < np.mean(covered) < 0.85 + 2 / (count + 1) + 0.01


def test_a_larger_coverage_is_a_wider_interval() -> None:
    x, _ = rows(50, seed=1)
    interval = calibrated_interval(500)
    widths = [np.subtract(*interval.bounds(OPEN, x, np.ones(50), coverage)[::-1]) for coverage in COVERAGES]
    assert (np.diff(widths, axis=0) > 0).all()


def test_interval_bounds_are_clipped_to_the_bounds_of_the_target() -> None:
    x, _ = rows(50, seed=1)
    lower, upper = calibrated_interval(500).bounds(BOUND, x, np.full(50, 0.3), 0.99)
    assert lower.min() == 0.0 and upper.max() == 1.0
    assert (lower <= 0.3).all() and (upper >= 0.3).all()


@pytest.mark.parametrize("coverage", [0.0, -0.1, 1.0, 1.5, 90, float("nan"), 0.91])
def test_an_impossible_coverage_is_an_error_with_the_maximum(coverage: float) -> None:
    with pytest.raises(ConfigError, match=rf"coverage must be above 0 and at most 0.9 \(got {coverage:g}\)"):
        calibrated_interval(19).bounds(OPEN, *rows(3, seed=0), coverage)


@pytest.mark.parametrize("count", range(2, 60))
def test_the_maximum_coverage_is_possible(count: int) -> None:
    interval, (x, _) = calibrated_interval(count), rows(3, seed=0)
    lower, upper = interval.bounds(OPEN, x, np.zeros(3), interval.max_coverage)
    np.testing.assert_allclose(upper - lower, np.ptp(interval.calibration.scores) * x[:, 0])


def test_the_bundle_of_a_run_covers_held_out_rows(towns: Table, tmp_path: Path) -> None:
    cfg = config("train", "data=towns", "features=static", "model.estimator.n_estimators=60", "split.valid=0.4")
    parts = split(towns, cfg.split)
    bundle = build(BuildSettings.from_config(cfg), towns, parts, run_id="none")[0]
    actual = towns.target[parts.test]
    predicted, *quantiles = bundle.predict_quantiles(towns.matrix[parts.test], (0.05, 0.5, 0.95))
    np.testing.assert_array_equal(predicted, bundle.predict(towns.matrix[parts.test]))
    np.testing.assert_allclose(quantiles[::2], bundle.predict_interval(towns.matrix[parts.test], 0.9)[1:], rtol=1e-12)
    for coverage in (0.5, 0.8, 0.95):
        predicted, lower, upper = bundle.predict_interval(towns.matrix[parts.test], coverage)
        assert ((lower <= actual) & (actual <= upper)).mean() > coverage - 0.12
        np.testing.assert_array_equal(predicted, bundle.predict(towns.matrix[parts.test]))
    bundle.write(tmp_path / "bundle")
    read = Bundle.read(tmp_path / "bundle")
    for values, expected in zip(
        read.predict_interval(towns.matrix, 0.9), bundle.predict_interval(towns.matrix, 0.9), strict=True
    ):
        np.testing.assert_array_equal(values, expected)


def test_each_bound_is_calibrated_on_its_own_side() -> None:
    random = np.random.default_rng(0)
    scores = random.exponential(size=4000) - 1  # most errors are slightly negative, some are large and positive
    x = np.ones((5000, 1))
    lower, upper = Interval(Calibration(scores), ProportionalError()).bounds(OPEN, x, np.zeros(5000), 0.9)
    new = random.exponential(size=5000) - 1
    assert np.mean(new < lower) == pytest.approx(0.05, abs=0.01) and np.mean(new > upper) == pytest.approx(0.05, abs=0.01)
    assert upper[0] > 1.5 * -lower[0]


class Skewed:
    """A quantile model that knows the shape of the scores of `skewed_scores`, but not their size."""

    def __init__(self, level: float) -> None:
        self.level = level

    def predict(self, columns: Matrix) -> Vector:
        """Return half of the quantile, which is above 0 for rows with a positive second column and below 0 for the others."""
        quantile = -np.log(1 - self.level) - 1
        opposite = 1 + np.log(self.level)
        return np.asarray(0.5 * np.where(columns[:, 1] > 0, quantile, opposite))


def skewed_scores(count: int, seed: int) -> tuple[Matrix, Vector]:
    """Return rows and scores that are skewed upwards or downwards by the sign of the second column."""
    random = np.random.default_rng(seed)
    side = random.choice([-1.0, 1.0], count)
    return np.column_stack([np.ones(count), side]), side * (random.exponential(size=count) - 1)


@pytest.mark.parametrize("coverage", [0.3, 0.5, 0.7, 0.9, 0.96])  # between, at and beyond the levels
def test_quantile_models_shape_the_interval_and_the_calibration_corrects_them(coverage: float) -> None:
    levels = np.array([0.05, 0.25, 0.75, 0.95])
    models = [Skewed(level) for level in levels]

    def calibration(count: int, seed: int) -> tuple[Matrix, Calibration]:
        columns, scores = skewed_scores(count, seed)
        return columns, Calibration(scores, None, levels, np.column_stack([model.predict(columns) for model in models]))

    (_, known), (columns, new) = calibration(4000, 0), calibration(20_000, 1)
    lower, upper = Interval(known, ProportionalError(), models).bounds(OPEN, columns, np.zeros(len(new)), coverage)
    inside = (lower <= new.scores) & (new.scores <= upper)
    assert inside.mean() == pytest.approx(coverage, abs=0.02)
    np.testing.assert_array_equal(inside, known.covers(new, coverage))
    if coverage == levels[-1] - levels[0]:
        plain = Interval(Calibration(known.scores), ProportionalError()).bounds(OPEN, columns, np.zeros(len(new)), coverage)
        assert (upper - lower).mean() < 0.95 * (plain[1] - plain[0]).mean()


def skewed_interval(count: int) -> Interval:
    """Return the interval of quantile models, calibrated on this number of rows."""
    levels = np.array([0.05, 0.25, 0.75, 0.95])
    models = [Skewed(level) for level in levels]
    columns, scores = skewed_scores(count, seed=0)
    quantiles = np.column_stack([model.predict(columns) for model in models])
    return Interval(Calibration(scores, None, levels, quantiles), ProportionalError(), models)


@pytest.mark.parametrize("interval", [calibrated_interval(2000), skewed_interval(2000)], ids=["scaled", "quantile"])
def test_the_share_of_targets_below_a_quantile_is_its_level(interval: Interval) -> None:
    columns, new = (rows if interval.quantile_models == [] else skewed_scores)(20_000, seed=1)
    levels = (0.01, 0.05, 0.1, 0.3, 0.5, 0.6, 0.9, 0.95, 0.999)
    quantiles = interval.quantiles(OPEN, columns, np.zeros(len(new)), levels)
    assert (np.diff(quantiles, axis=0) >= 0).all()
    below = (new < quantiles).mean(axis=1)
    # of the share below a quantile: its variance over calibration rows, plus the one over new rows
    deviation = np.sqrt([level * (1 - level) * (1 / 2000 + 1 / 20_000) for level in levels])
    assert (np.abs(below - levels) < 3.5 * deviation + 1 / 2000).all(), below


@pytest.mark.parametrize("interval", [calibrated_interval(500), skewed_interval(500)], ids=["scaled", "quantile"])
def test_the_bounds_of_an_interval_are_two_quantiles(interval: Interval) -> None:
    x = np.column_stack([rows(50, seed=1)[0], np.tile([-1.0, 1.0], 25)])
    for coverage in (0.2, 0.5, 0.9, 0.96):
        levels = (0.5 - coverage / 2, 0.5 + coverage / 2)
        bounds = interval.bounds(BOUND, x, np.full(50, 0.3), coverage)
        np.testing.assert_allclose(interval.quantiles(BOUND, x, np.full(50, 0.3), levels), bounds, rtol=1e-12)


class Opposite:
    """A quantile model that is wrong: the higher its level, the lower its prediction, for rows with a large second column."""

    def __init__(self, level: float) -> None:
        self.level = level

    def predict(self, columns: Matrix) -> Vector:
        """Return a quantile that falls with the level for some rows."""
        return np.asarray(np.where(columns[:, 1] > 1, -self.level, self.level))


def test_quantiles_ascend_where_their_models_cross() -> None:
    levels, random = np.array([0.25, 0.75]), np.random.default_rng(0)
    columns = np.column_stack([np.ones(1000), random.uniform(0, 1.01, 1000)])
    models = [Opposite(level) for level in levels]
    scores = random.uniform(0, 0.1, 1000)
    calibration = Calibration(scores, None, levels, np.column_stack([model.predict(columns) for model in models]))
    crossed = np.column_stack([np.ones(10), np.full(10, 2.0)])
    quantiles = Interval(calibration, ProportionalError(), models).quantiles(OPEN, crossed, np.zeros(10), (0.1, 0.4, 0.6, 0.9))
    assert (np.diff(quantiles, axis=0) >= 0).all()


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ((0.04, 0.5), r"quantiles must be at least 0.05 and at most 0.95 with 19 calibration rows \(got 0.04\)"),
        ((0.5, 0.96), r"at most 0.95 with 19 calibration rows \(got 0.96\)"),
        ((0.0,), r"got 0\)"),
        ((float("nan"),), r"got nan\)"),
        ((0.5, 0.4), r"1 to 32 numbers that ascend \(got \[0.5, 0.4\]\)"),
        ((0.5, 0.5), "that ascend"),
        ((), "1 to 32 numbers"),
        (tuple(np.linspace(0.1, 0.9, 33)), "1 to 32 numbers"),
    ],
)
def test_impossible_quantiles_are_an_error_with_their_limits(levels: tuple[float, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        calibrated_interval(19).quantiles(OPEN, rows(3, seed=0)[0], np.zeros(3), levels)


@pytest.mark.parametrize("count", range(2, 60))
def test_the_outermost_quantiles_are_possible(count: int) -> None:
    interval, (x, _) = calibrated_interval(count), rows(3, seed=0)
    lowest, highest = interval.quantiles(OPEN, x, np.zeros(3), (1 / (count + 1), count / (count + 1)))
    scores = interval.calibration.scores
    np.testing.assert_allclose(lowest, scores.min() * x[:, 0])
    np.testing.assert_allclose(highest, scores.max() * x[:, 0])


def test_a_run_with_quantiles_learns_from_all_fitted_rows_and_serves_them_from_its_bundle(towns: Table, tmp_path: Path) -> None:
    few_trees = ("interval.estimator.n_estimators=20", "interval.quantiles.estimator.n_estimators=20")
    cfg = config("train", "data=towns", "features=none", "model=linear", "interval=quantile", *few_trees)
    parts, stored = split(towns, cfg.split), list[HoldoutPredictions]()
    bundle = build(BuildSettings.from_config(cfg), towns, parts, run_id="none", on_fit=stored.append)[0]
    assert bundle.interval is not None
    assert len(bundle.interval.calibration) == len(parts.train) + len(parts.valid)
    assert stored[0].calibration is not None and len(stored[0].calibration) == len(parts.valid)
    predicted, lower, upper = bundle.predict_interval(towns.matrix[parts.test], 0.8)
    actual = towns.target[parts.test]
    assert ((lower <= actual) & (actual <= upper)).mean() > 0.8 - 0.12
    bundle.write(tmp_path / "bundle")
    for values, expected in zip(
        Bundle.read(tmp_path / "bundle").predict_interval(towns.matrix[parts.test], 0.8), (predicted, lower, upper), strict=True
    ):
        np.testing.assert_array_equal(values, expected)


def test_noisy_rows_get_wider_intervals(towns: Table) -> None:
    random, has_garden = np.random.default_rng(0), towns.matrix[:, 4] > 0
    noisy = dataclasses.replace(towns, target=500 + random.normal(0, np.where(has_garden, 100, 5)))
    cfg = config("train", "data=towns", "features=none", "model=linear", "split.valid=0.5")
    bundle = build(BuildSettings.from_config(cfg), noisy, split(noisy, cfg.split), run_id="none")[0]
    _, lower, upper = bundle.predict_interval(towns.matrix, 0.9)
    assert np.median((upper - lower)[has_garden]) > 3 * np.median((upper - lower)[~has_garden])


def test_intervals_of_a_run_without_them_are_an_error(rentals: Table) -> None:
    cfg = config("train", "data=rentals", "features=none", "interval=none", "model=linear")
    bundle = build(BuildSettings.from_config(cfg), rentals, split(rentals, cfg.split), run_id="none")[0]
    with pytest.raises(BundleError, match="The model has no intervals"):
        bundle.predict_interval(rentals.matrix, 0.9)
    with pytest.raises(BundleError, match="The model has no intervals"):
        bundle.predict_quantiles(rentals.matrix, (0.5,))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("max_rows=40",), r"interval.folds=5 needs at least 10 validation rows .got \d+"),
        (("interval.folds=1",), "interval.folds must be 2 or more .got 1"),
        (("interval.held_out=test",), "interval.held_out must be validation or out_of_fold .got 'test'"),
        (("interval=quantile", "interval.quantiles.levels=[.9,.1]"), "interval.quantiles.levels must be numbers that ascend"),
        (("interval=quantile", "+interval.quantiles.estimator.max_dept=3"), "has no argument max_dept. Did you mean max_depth"),
    ],
)
def test_too_few_rows_or_folds_for_intervals_are_an_error(rentals: Table, overrides: tuple[str, ...], message: str) -> None:
    cfg = config("train", "data=rentals", "features=none", "model=linear", *overrides)
    table = rentals if cfg.max_rows is None else rentals.head(cfg.max_rows)
    with pytest.raises(ConfigError, match=message):
        build(BuildSettings.from_config(cfg), table, split(table, cfg.split), run_id="none")
