"""Bootstrap intervals: their width against theory, and their reproducibility."""

import numpy as np
import pytest

from housing.data.units import Units
from housing.evaluation.bootstrap import bootstrap_interval


def test_rmse_interval_is_as_wide_as_theory_says_and_reproducible() -> None:
    error = np.random.default_rng(1).normal(0, 1, 4000)
    interval = bootstrap_interval(error, "rmse", 0.95, 1000, seed=0)
    assert interval is not None
    lower, upper = interval
    assert interval == bootstrap_interval(error, "rmse", 0.95, 1000, seed=0)
    assert lower < np.sqrt(np.mean(error**2)) < upper
    assert upper - lower == pytest.approx(2 * 1.96 / np.sqrt(2 * 4000), rel=0.15)  # standard error of a standard deviation
    assert bootstrap_interval(np.full(30, 3.0), "rmse", 0.95, 100, seed=0) == (3.0, 3.0)
    assert bootstrap_interval(np.ones(29), "rmse", 0.95, 100, seed=0) is None  # too few rows for an interval


def test_mae_interval_holds_the_mae() -> None:
    error = np.random.default_rng(1).normal(0, 1, 4000)
    interval = bootstrap_interval(error, "mae", 0.95, 1000, seed=0)
    assert interval is not None
    lower, upper = interval
    assert lower < np.mean(np.abs(error)) < upper < 1


def test_whole_units_are_resampled() -> None:
    error = np.repeat(np.random.default_rng(1).normal(size=100), 20)
    by_row, by_unit = (
        bootstrap_interval(error, "rmse", 0.95, 1000, 0, units)
        for units in (None, Units("customers", np.repeat(np.arange(100), 20)))
    )
    of_customers = bootstrap_interval(error[::20], "rmse", 0.95, 1000, 0)
    assert by_row is not None and by_unit is not None
    assert by_unit == pytest.approx(of_customers)
    assert by_unit[1] - by_unit[0] > 3 * (by_row[1] - by_row[0])
    assert bootstrap_interval(error[:580], "rmse", 0.95, 100, 0, Units("customers", np.repeat(np.arange(29), 20))) is None
