"""Multivariate drift: joint drift that no column shows, no alarm without drift, and what the monitor publishes."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grafana import alerts
from housing.bundle.bundle import Bundle
from housing.monitoring.domain_classifier import Z_LIMIT, MultivariateDrift, measure_multivariate_drift
from housing.monitoring.monitor import Monitor
from housing.monitoring.multivariate_drift import MultivariateDriftAnalysis
from housing.schema.column import Column, Matrix
from tests.support.monitoring import WINDOW_ROWS, log_requests, metric, monitor_settings, published
from tests.support.tables import rentals_frame

NAMES = ("size", "price", "age", "kind")
COLUMNS = [
    *(Column(name, "float", nullable=name == "age") for name in NAMES[:3]),
    Column("kind", "category", categories=("a", "b", "c")),
]


def draw_rows(random: np.random.Generator, count: int = 1000) -> Matrix:
    """Return rows whose price depends on the size, with some missing ages and a kind."""
    size = random.normal(size=count)
    age = np.where(random.random(count) < 0.1, np.nan, random.exponential(size=count))
    return np.column_stack([size, size + 0.3 * random.normal(size=count), age, random.integers(0, 3, count)]).astype(float)


def measure(window: Matrix, seed: int = 0) -> MultivariateDrift:
    """Compare a window with rows without drift."""
    return measure_multivariate_drift(COLUMNS, draw_rows(np.random.default_rng(seed)), window, {})


def flats(bundle: Bundle) -> list[dict[str, Any]]:
    """Return a window of rows from the training distribution."""
    frame = rentals_frame(WINDOW_ROWS, seed=5)[[column.name for column in bundle.schema.features]]
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def test_windows_without_drift_raise_no_alarm() -> None:
    drifts = [measure(draw_rows(np.random.default_rng(100 + seed)), seed) for seed in range(20)]
    assert sum(drift.has_drifted for drift in drifts) <= 1
    assert abs(np.mean([drift.auc for drift in drifts]) - 0.5) < 0.02


def test_a_shuffled_column_is_joint_drift_of_the_columns_that_depended_on_each_other() -> None:
    window = draw_rows(np.random.default_rng(1))
    window[:, 1] = np.random.default_rng(2).permutation(window[:, 1])
    drift = measure(window)
    assert drift.has_drifted and drift.z > 10
    assert set(list(drift.columns)[:2]) == {"size", "price"}


@pytest.mark.parametrize(
    ("column", "values"),
    [(0, np.linspace(0, 3, 1000)), (2, np.full(1000, np.nan)), (3, np.zeros(1000))],
    ids=["shift", "all missing", "one level"],
)
def test_drift_of_one_column_is_seen_and_named(column: int, values: Matrix) -> None:
    window = draw_rows(np.random.default_rng(1))
    window[:, column] = values
    drift = measure(window)
    assert drift.has_drifted
    assert next(iter(drift.columns)) == NAMES[column]


def test_equal_rows_and_many_columns_are_no_error() -> None:
    rows = np.ones((200, 300))
    drift = measure_multivariate_drift([Column(f"x{index}", "float") for index in range(300)], rows, rows, {"x7": 1.0})
    assert not drift.has_drifted
    assert "x7" in drift.columns and len(drift.columns) < 300


def test_the_alert_has_the_limit_of_the_analysis() -> None:
    assert alerts.read_alerts()["HousingMultivariateDrift"].threshold == Z_LIMIT


def test_the_monitor_publishes_drift_and_contributions_by_column(tmp_path: Path, bundle: Bundle) -> None:
    settings = monitor_settings(tmp_path, bundle)
    monitor = Monitor(settings, tmp_path / "metrics", [MultivariateDriftAnalysis()])
    log_requests(tmp_path, bundle, [{**row, "area": 119.0} for row in flats(bundle)])
    monitor.step()
    assert metric(tmp_path, "housing_multivariate_drift_available") == 1
    assert metric(tmp_path, "housing_multivariate_drift_z") > Z_LIMIT
    shares = [value for key, value in published(tmp_path).items() if "housing_column_contribution_ratio" in key]
    assert len(shares) == len(bundle.schema.features)
    assert sum(shares) == pytest.approx(1)


def test_a_bundle_without_a_sample_says_so(tmp_path: Path, bundle: Bundle) -> None:
    without = dataclasses.replace(bundle, sample=None)
    monitor = Monitor(monitor_settings(tmp_path, without), tmp_path / "metrics", [MultivariateDriftAnalysis()])
    log_requests(tmp_path, bundle, flats(bundle))
    monitor.step()
    assert metric(tmp_path, "housing_multivariate_drift_available") == 0
    assert not any("housing_multivariate_drift_z" in key for key in published(tmp_path))
