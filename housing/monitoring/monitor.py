"""The monitor: a process that follows the prediction log of a server and analyses each window of rows of a version.

Callers do not wait for it: it reads what is logged, with the lowest priority. Each step is one transaction of `monitor.db`, so a
monitor that is killed repeats it and counts no row twice. An analysis that fails is logged and counted, and the others go on.
"""

import logging
import os
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from housing.core.errors import ConfigError
from housing.core.locks import file_lock
from housing.core.printable import configure_logging
from housing.core.step_loop import repeat_forever
from housing.feedback import local_database
from housing.feedback.error_totals import totals_key
from housing.feedback.log_reader import Entry, parse_entry, parse_joined_row
from housing.feedback.served_bundles import ServedBundles
from housing.monitoring import database
from housing.monitoring.analyses import create_analyses
from housing.monitoring.analysis import Analysis, LoggedRow, State, Window
from housing.monitoring.database import MonitorDatabase, Result
from housing.monitoring.log_follower import LogFollower
from housing.monitoring.request_counters import record_increases
from housing.server_files import metric_files
from housing.server_files.metric_files import series_key
from housing.server_files.rotating_file import JOINED, PREDICTIONS
from server.core.settings import Settings
from server.metrics.model_metrics import version_labels

LOCK_FILE = "monitor.lock"
NICENESS = 19  # the lowest priority: workers come first
REST_RATIO = 1  # the pause is at least as long as a step: at most half of a core
COUNTERS_FILE = "counter_monitor.db"  # beside the metrics files of the workers
GAUGES_FILE = "gauge_max_monitor.db"

FAILURES, MALFORMED, SKIPPED, WINDOWS = "failures", "malformed", "skipped", "windows"  # names of counts
COUNTS = {
    FAILURES: ("housing_monitor_failures_total", "Windows or true values for which an analysis failed."),
    MALFORMED: ("housing_monitor_malformed_lines_total", "Damaged lines of the prediction log or of the joined rows."),
    SKIPPED: ("housing_monitor_skipped_rows_total", "Rows of versions whose bundle is no longer on disk."),
    WINDOWS: ("housing_monitor_windows_total", "Windows of rows that were analysed."),
}
UNREAD_BYTES = "housing_monitor_unread_bytes", "Bytes of the log that the monitor has not read yet."
UNLABELLED = (MALFORMED, SKIPPED, WINDOWS)
DAMAGED_DATABASES = "housing_monitor_damaged_databases_total", "Damaged databases that were set aside and still exist."

log = logging.getLogger("monitor")


class Monitor:
    """Reads new lines of the log, analyses full windows, and publishes the results, one step after the other."""

    def __init__(self, settings: Settings, metrics_dir: Path, analyses: Sequence[Analysis]) -> None:
        self._settings, self._metrics_dir, self._analyses = settings, metrics_dir, analyses
        self._bundles = ServedBundles(settings.list_models())
        self._database = self._open_database()

    def step(self) -> None:
        """Take one step, whole or not at all. Raises OSError, ConfigError or sqlite3.Error if that fails.

        If the reason is a damaged database, the next step has a new one, for which the log is read again.
        """
        self._bundles.refresh()
        try:
            follower = LogFollower(self._settings.log_dir, self._database)
            with self._database.transaction():
                follower.forget_removed()
                self._read_predictions(follower)
                self._analyse_windows()
                self._learn_labels(follower)
                record_increases(self._database, self._metrics_dir, time.time())
                self._database.remove_old(time.time() - self._settings.log_retention_days * 86400)
            self._publish(follower)
        except sqlite3.Error as error:
            if not local_database.is_transient(error):
                self._database.close()
                self._database = self._open_database()
            raise

    def _open_database(self) -> MonitorDatabase:
        damaged = database.set_aside_if_damaged(self._settings.log_dir)
        if damaged is not None:
            log.error("The database of the monitor is damaged. It is now %s; the log is read again.", damaged)
        return MonitorDatabase(self._settings.log_dir)

    def _read_predictions(self, follower: LogFollower) -> None:
        for _, line in follower.new_lines(PREDICTIONS):
            try:
                entry = parse_entry(line)
            except ValueError:
                self._database.increase(MALFORMED)
                continue
            self._database.add_rows(totals_key(entry), _logged_rows(entry))

    def _analyse_windows(self) -> None:
        size = self._settings.monitor_window_rows
        for key, count in self._database.waiting().items():
            bundle = self._bundles.get(key)
            if bundle is None:
                self._database.take_rows(key, count)
                self._database.increase(SKIPPED, count)
                continue
            model, _, version = key.rpartition(":")
            for _ in range(count // size):
                window = Window(model, version, bundle, self._database.take_rows(key, size))
                self._database.increase(WINDOWS)
                for analysis in self._analyses:
                    self._guard(analysis, self._analyse, analysis, key, window)

    def _analyse(self, analysis: Analysis, key: str, window: Window) -> None:
        result = analysis.analyse(window, self._database.state(analysis.name, key))
        if result is not None:
            times = window.rows[0].time, window.rows[-1].time
            self._database.add_result(Result(analysis.name, key, *times, len(window.rows), result))

    def _learn_labels(self, follower: LogFollower) -> None:
        labelled: dict[str, list[LoggedRow]] = defaultdict(list)
        for model, line in follower.new_lines(JOINED):
            row = parse_joined_row(line)
            if row is None:
                self._database.increase(MALFORMED)
            else:
                key = f"{model}:{row['version']}" if model else row["version"]
                labelled[key].append(LoggedRow(row["time"], row["columns"], row["prediction"], row["value"]))
        for key, rows in labelled.items():
            bundle = self._bundles.get(key)
            if bundle is None:
                self._database.increase(SKIPPED, len(rows))
                continue
            model, _, version = key.rpartition(":")
            for analysis in self._analyses:
                self._guard(analysis, self._learn, analysis, key, Window(model, version, bundle, rows))

    def _learn(self, analysis: Analysis, key: str, labelled: Window) -> None:
        state = self._database.state(analysis.name, key)
        self._database.set_state(analysis.name, key, analysis.learn(labelled, state))

    def _guard(self, analysis: Analysis, action: Callable[..., None], *arguments: Any) -> None:
        """Apply an action. Count and announce what it raises, so that one broken analysis does not stop the others."""
        try:
            action(*arguments)
        except (OSError, sqlite3.Error):
            raise  # of the database, not of the analysis
        except Exception:  # pylint: disable=broad-exception-caught  # an analysis may raise anything
            log.exception("The analysis %s failed; the others go on", analysis.name)
            self._database.increase(FAILURES, label=analysis.name)

    def _publish(self, follower: LogFollower) -> None:
        counters = dict(self._counters())
        gauges = {series_key(*UNREAD_BYTES, {}): float(follower.unread_bytes())}
        for key in self._bundles.keys:
            model, _, version = key.rpartition(":")
            for analysis in self._analyses:
                result, state = self._database.latest_result(analysis.name, key), self._database.state(analysis.name, key)
                self._guard(analysis, self._add_series, gauges, analysis, version_labels(version, model), result, state)
        metric_files.write_series(self._metrics_dir / COUNTERS_FILE, counters)
        metric_files.write_series(self._metrics_dir / GAUGES_FILE, gauges)

    @staticmethod
    def _add_series(gauges: dict[str, float], analysis: Analysis, labels: dict[str, str], result: State, state: State) -> None:
        gauges |= dict(analysis.series(labels, result, state))

    def _counters(self) -> Iterator[tuple[str, float]]:
        """Yield the counters; all exist from the start, so that Prometheus sees their first increase."""
        values = {(name, ""): 0 for name in UNLABELLED} | {(FAILURES, analysis.name): 0 for analysis in self._analyses}
        values |= {(name, label): value for name, label, value in self._database.counts()}
        for (name, label), value in values.items():
            yield series_key(*COUNTS[name], {"analysis": label} if label else {}), float(value)
        damaged = local_database.count_damaged(self._settings.log_dir / database.DATABASE_FILE)
        yield series_key(*DAMAGED_DATABASES, {}), float(damaged)


def _logged_rows(entry: Entry) -> Iterator[LoggedRow]:
    for values, prediction in zip(entry["rows"], entry["predictions"], strict=True):
        yield LoggedRow(entry["time"], dict(zip(entry["columns"], values, strict=True)), prediction)


def main() -> None:
    """Follow the log directory that the environment names, until this process is stopped."""
    configure_logging("monitor: %(message)s")
    os.nice(NICENESS)
    metric_files.use_process_name("monitor")
    settings = Settings.from_environment()
    waiting_message = f"another monitor works in {settings.log_dir}; waiting until it ends"
    try:
        with file_lock(settings.log_dir / LOCK_FILE, waiting_message=waiting_message):  # the database has one writer
            monitor = Monitor(settings, Path(os.environ[metric_files.METRICS_DIR_VARIABLE]), create_analyses(settings))
            errors = OSError, ConfigError, sqlite3.Error
            repeat_forever(monitor.step, REST_RATIO, errors, "rows are not analysed at present", log)
    except KeyboardInterrupt:
        pass  # Ctrl-C in a terminal


if __name__ == "__main__":
    main()
