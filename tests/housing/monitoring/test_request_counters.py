"""Increases of request counters: by hour, through restarts of server and monitor, and without probes."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from housing.monitoring.database import DATABASE_FILE, MonitorDatabase, read_increases, set_aside_if_damaged
from housing.monitoring.request_counters import DROPPED, FAILED_REQUESTS, REFUSED_VALUES, RequestCounter, record_increases
from housing.server_files.metric_files import sample_key, series_key, write_series

HOUR = 3600
REFUSED = RequestCounter(REFUSED_VALUES, ("area", "bounds")).to_key()
FAILED = RequestCounter(FAILED_REQUESTS, ("/predict", "422")).to_key()
LOST = RequestCounter(DROPPED).to_key()


def write_metrics(folder: Path, refused: float, failed: float = 0.0, dropped: float = 0.0) -> None:
    """Write the metrics of a worker: two buckets of failed requests, one answered request and a probe."""
    folder.mkdir(exist_ok=True)
    rejected = {series_key("housing_rejected_values_total", "", {"column": "area", "reason": "bounds"}): refused}
    write_series(folder / "counter_0.db", rejected | {series_key("housing_log_dropped_total", "", {}): dropped})

    def bucket(route: str, status: str, le: str) -> str:
        name = "housing_request_seconds"
        return sample_key(name, f"{name}_bucket", "", {"route": route, "status": status, "le": le})

    buckets = {bucket("/predict", "422", le): failed / 2 for le in ("0.1", "+Inf")}
    others = {bucket("/predict", "200", "0.1"): 9.0, bucket("/readyz", "503", "0.1"): 9.0}
    write_series(folder / "histogram_0.db", buckets | others)


@pytest.fixture(name="database")
def fixture_database(tmp_path: Path) -> MonitorDatabase:
    """Return an empty database."""
    return MonitorDatabase(tmp_path)


def test_increases_are_recorded_by_hour_and_a_quiet_hour_too(tmp_path: Path, database: MonitorDatabase) -> None:
    metrics = tmp_path / "metrics"
    for now, refused in ((10, 3.0), (20, 3.0), (30, 5.0), (HOUR + 1, 5.0), (2 * HOUR + 1, 6.0)):
        write_metrics(metrics, refused, failed=2 * refused, dropped=1.0)
        record_increases(database, metrics, now)
    (tmp_path / "empty.db").touch()
    assert read_increases(tmp_path, 0, 9 * HOUR) == {
        0: {REFUSED: 5.0, FAILED: 10.0, LOST: 1.0},
        HOUR: {},
        2 * HOUR: {REFUSED: 1.0, FAILED: 2.0},
    }
    assert list(read_increases(tmp_path, HOUR + 100, 2 * HOUR)) == [HOUR]  # the hour overlaps the period
    assert RequestCounter.from_key(FAILED) == RequestCounter(FAILED_REQUESTS, ("/predict", "422"))


def test_a_restart_of_server_or_monitor_counts_no_value_twice(tmp_path: Path, database: MonitorDatabase) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_metrics(first, 5.0)
    record_increases(database, first, 10)
    database.close()
    database = MonitorDatabase(tmp_path)
    record_increases(database, first, 11)
    write_metrics(first, 2.0)  # the same folder, emptied by a new server
    record_increases(database, first, 12)
    write_metrics(second, 7.0)  # another folder: a new server, whose total is above the previous one
    record_increases(database, second, 13)
    assert read_increases(tmp_path, 0, HOUR) == {0: {REFUSED: 14.0}}


def test_a_database_of_an_earlier_version_is_upgraded(tmp_path: Path, database: MonitorDatabase) -> None:
    database.increase("windows")
    database.close()
    with closing(sqlite3.connect(tmp_path / DATABASE_FILE)) as connection:
        connection.executescript("DROP TABLE increases; PRAGMA user_version = 1;")
    assert set_aside_if_damaged(tmp_path) is None
    upgraded = MonitorDatabase(tmp_path)
    upgraded.add_increases(HOUR, {REFUSED: 1.0})
    assert list(upgraded.counts()) == [("windows", "", 1)]


def test_without_a_database_there_are_no_increases(tmp_path: Path) -> None:
    assert not read_increases(tmp_path / "none", 0, HOUR)
