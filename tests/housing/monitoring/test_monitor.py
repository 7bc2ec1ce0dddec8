"""The monitor: windows of the log, each row once, through restarts, damage and analyses that fail."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from housing.bundle.bundle import Bundle
from housing.monitoring.analysis import Analysis, State, Window
from housing.monitoring.database import DATABASE_FILE, read_results
from housing.monitoring.monitor import Monitor
from housing.server_files.metric_files import series_key
from server.core.settings import Settings
from tests.support.feedback import append
from tests.support.monitoring import START, WINDOW_ROWS, log_requests, log_true_values, metric, monitor_settings, published
from tests.support.tables import FLAT


class Mean(Analysis):
    """The mean prediction of each window, and the number of true values."""

    name = "mean"

    def analyse(self, window: Window, state: State) -> State | None:
        """Return the mean and the shape."""
        return {"mean": float(window.predictions.mean()), "shape": list(window.matrix.shape)}

    def learn(self, labelled: Window, state: State) -> State:
        """Count true values."""
        return {"labels": state.get("labels", 0) + len(labelled.actual)}

    def series(self, labels: Mapping[str, str], result: State, state: State) -> Iterator[tuple[str, float]]:
        """Yield the number of true values."""
        yield series_key("test_labels", "True values.", labels), state.get("labels", 0)


class Broken(Analysis):
    """An analysis that raises."""

    name = "broken"

    def analyse(self, window: Window, state: State) -> State | None:
        """Fail."""
        raise ZeroDivisionError


@pytest.fixture(name="settings")
def fixture_settings(tmp_path: Path, bundle: Bundle) -> Settings:
    """Return the settings of a monitor whose log is empty."""
    return monitor_settings(tmp_path, bundle)


def start(settings: Settings, folder: Path) -> Monitor:
    """Return a monitor with a broken analysis and one that works."""
    return Monitor(settings, folder / "metrics", [Broken(), Mean()])


def flats(count: int) -> list[dict[str, Any]]:
    """Return rows of the rentals table."""
    return [dict(FLAT, area=20.0 + index % 100) for index in range(count)]


def test_each_row_is_in_one_window_through_restarts_and_a_broken_analysis(
    tmp_path: Path, settings: Settings, bundle: Bundle
) -> None:
    monitor = start(settings, tmp_path)
    monitor.step()
    assert metric(tmp_path, "housing_monitor_windows_total") == 0
    entries = log_requests(tmp_path, bundle, flats(WINDOW_ROWS + 30))
    monitor.step()
    monitor = start(settings, tmp_path)
    entries += log_requests(tmp_path, bundle, flats(WINDOW_ROWS), first=len(entries))
    log_true_values(tmp_path, entries[:7], [1.0] * 7)
    monitor.step()
    monitor.step()
    results = read_results(settings.log_dir)
    predictions = [entry["predictions"][0] for entry in entries]
    assert [result.n_rows for result in results] == [WINDOW_ROWS, WINDOW_ROWS]
    for index, result in enumerate(results):
        expected = predictions[index * WINDOW_ROWS : (index + 1) * WINDOW_ROWS]
        assert result.result["mean"] == pytest.approx(sum(expected) / WINDOW_ROWS)
        assert (result.first_time, result.last_time) == (START + index * WINDOW_ROWS, START + (index + 1) * WINDOW_ROWS - 1)
    assert metric(tmp_path, "test_labels") == 7
    assert metric(tmp_path, "housing_monitor_windows_total") == 2
    assert metric(tmp_path, "housing_monitor_unread_bytes") == 0
    assert read_results(settings.log_dir, since=START + 150) == results[1:]
    failures = {key: value for key, value in published(tmp_path).items() if "housing_monitor_failures_total" in key}
    assert {value for key, value in failures.items() if '"broken"' in key} == {2}
    assert {value for key, value in failures.items() if '"mean"' in key} == {0}


def test_damaged_lines_and_versions_without_a_release_are_counted(tmp_path: Path, settings: Settings, bundle: Bundle) -> None:
    entries = log_requests(tmp_path, bundle, flats(3))
    append(settings.log_dir, "predictions-1", "damaged", {**entries[0], "version": "7"})
    start(settings, tmp_path).step()
    assert metric(tmp_path, "housing_monitor_malformed_lines_total") == 1
    assert metric(tmp_path, "housing_monitor_skipped_rows_total") == 1


def test_a_damaged_database_is_set_aside_and_the_log_read_again(tmp_path: Path, settings: Settings, bundle: Bundle) -> None:
    log_requests(tmp_path, bundle, flats(WINDOW_ROWS))
    Monitor(settings, tmp_path / "metrics", [Mean()]).step()
    for path in settings.log_dir.glob(f"{DATABASE_FILE}*"):
        path.unlink()  # with the write-ahead log, from which SQLite would repair it
    (settings.log_dir / DATABASE_FILE).write_bytes(b"damaged" * 1000)
    start(settings, tmp_path).step()
    assert len(read_results(settings.log_dir)) == 1
    assert metric(tmp_path, "housing_monitor_damaged_databases_total") == 1
