"""Everything that is known about a period: the log, true values, the monitor's results, refused values and decisions."""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig

from housing.core.errors import StoreError
from housing.feedback import database as feedback_database
from housing.feedback.log_reader import Entry, parse_joined_row
from housing.monitoring import database as monitor_database
from housing.monitoring.log_follower import list_log_files
from housing.monitoring.request_counters import RequestCounter
from housing.monitoring_report.realised_error import LabelStore, RealisedError, label_store
from housing.monitoring_report.settings import ReportSettings
from housing.monitoring_report.timeline import Timeline
from housing.monitoring_report.traffic import Traffic, read_traffic
from housing.monitoring_report.windows import Windows, sum_windows
from housing.promotion.decision_log import DecisionRecord, list_decisions
from housing.server_files.request_id import parse_request_id
from housing.server_files.rotating_file import JOINED, PREDICTIONS, list_files, started_at
from housing.tracking import store as tracking
from housing.traffic.labelled_rows import is_sound
from housing.traffic.logged_rows import OnBytes, read_lines, select_files
from housing.traffic.progress import log_progress


@dataclass
class RequestCounts:
    """Increases of counters, which the log does not have, and the hours that the monitor recorded.

    Attributes
    ----------
    hours
        The starts of the recorded hours (Unix seconds), oldest first.
    """

    counts: dict[RequestCounter, int] = field(default_factory=dict)
    hours: list[int] = field(default_factory=list)

    def of_kind(self, kind: str) -> dict[tuple[str, ...], int]:
        """Return the counts of a kind by their labels, largest first."""
        selected = {counter.labels: count for counter, count in self.counts.items() if counter.kind == kind}
        return dict(sorted(selected.items(), key=lambda item: -item[1]))


@dataclass
class PeriodData:  # pylint: disable=too-many-instance-attributes  # one for each source
    """The data of a report.

    Attributes
    ----------
    log_started_at
        When the oldest file of the log began (Unix seconds); requests before that are unknown.
    realised, realised_by_bucket
        Errors on true values, by key of the version and by bucket of the coarser timeline.
    malformed_labels
        Damaged lines of joined rows.
    feedback_counts
        What the joiner counted since its database began.
    decisions
        Newest first; None if the decision log cannot be read.
    errors
        Why a source could not be read, by its name.
    """

    timeline: Timeline
    traffic: Traffic
    log_started_at: float
    realised: dict[str, RealisedError]
    realised_by_bucket: dict[str, dict[int, RealisedError]]
    malformed_labels: int
    feedback_counts: dict[str, int] = field(default_factory=dict)
    windows: Windows = field(default_factory=Windows)
    request_counts: RequestCounts = field(default_factory=RequestCounts)
    has_monitor: bool = False
    decisions: list[DecisionRecord] | None = None
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def versions(self) -> list[str]:
        """The keys of all versions, in the order of their first requests."""
        traffic, windows = self.traffic.versions, self.windows
        keys = {*traffic, *self.realised, *windows.estimates, *windows.drift}
        return sorted(keys, key=lambda key: (traffic[key].first if key in traffic else float("-inf"), key))


def read_period(cfg: DictConfig, settings: ReportSettings) -> PeriodData:
    """Read all sources. A source that cannot be read is in `errors`, so that the page can say so."""
    data = _read_logs(settings)
    data.has_monitor = (settings.log_dir / monitor_database.DATABASE_FILE).exists()
    try:
        data.windows, data.request_counts = _read_monitor(settings)
    except sqlite3.Error as error:
        data.errors["monitor"] = f"{settings.log_dir / monitor_database.DATABASE_FILE}: {error}"
    try:
        data.feedback_counts = feedback_database.read_counts(settings.log_dir)
    except sqlite3.Error as error:
        data.errors["feedback"] = f"{settings.log_dir / feedback_database.DATABASE_FILE}: {error}"
    try:
        decisions = list_decisions(tracking.connect(cfg.mlflow), cfg.decisions_experiment)
        data.decisions = [item for item in decisions if settings.timeline.contains(item.decided_at.timestamp())]
    except StoreError as error:
        data.errors["decisions"] = str(error)
    return data


def _read_logs(settings: ReportSettings) -> PeriodData:
    """Read the prediction log and the true values, and show the progress."""
    predictions, joined = select_files(settings.log_dir, settings.log_filter), _joined_files(settings)
    n_bytes = sum(path.stat().st_size for path in (*predictions, *(path for _, path in joined)))
    with log_progress(n_bytes) as on_bytes, label_store(settings.timeline.coarser()) as labels:
        traffic = read_traffic(read_lines(predictions, on_bytes), settings.timeline, settings.log_filter)
        malformed = sum(_add_labels(labels, settings, model, path, on_bytes) for model, path in joined)
        realised, realised_by_bucket = labels.by_version(), labels.by_bucket()
    return PeriodData(settings.timeline, traffic, _log_start(settings.log_dir), realised, realised_by_bucket, malformed)


def _joined_files(settings: ReportSettings) -> list[tuple[str, Path]]:
    """Return the files that can hold true values of the period: a true value is joined after its request."""
    files = list_log_files(settings.log_dir, JOINED)
    return [(model, path) for model, path in files if path.stat().st_mtime >= settings.timeline.since]


def _log_start(log_dir: Path) -> float:
    starts = []
    for path in list_files(log_dir, PREDICTIONS):
        try:
            starts.append(started_at(path))
        except ValueError:  # a person renamed it
            starts.append(float("-inf"))
    return min(starts, default=float("inf"))


def _add_labels(labels: LabelStore, settings: ReportSettings, model: str, path: Path, on_bytes: OnBytes) -> int:
    """Add the true values of a file whose requests are selected. Return the number of damaged lines."""
    malformed = 0

    def select(lines: Iterable[bytes]) -> Iterator[tuple[str, Entry]]:
        nonlocal malformed
        for line in lines:
            row = parse_joined_row(line)
            if row is None or not is_sound(row):
                malformed += 1
                continue
            key = f"{model}:{row['version']}" if model else row["version"]
            if settings.selects(key) and settings.timeline.contains(parse_request_id(row["id"])[0]):
                yield key, row

    labels.add(select(read_lines([path], on_bytes)))
    return malformed


def _read_monitor(settings: ReportSettings) -> tuple[Windows, RequestCounts]:
    since, until = settings.timeline.since, settings.timeline.until
    results = (result for result in monitor_database.iter_results(settings.log_dir, since, until) if settings.selects(result.key))
    windows, counts = sum_windows(results, settings.timeline), RequestCounts()
    for hour, increases in monitor_database.read_increases(settings.log_dir, since, until).items():
        counts.hours.append(hour)
        for key, value in increases.items():
            counter = RequestCounter.from_key(key)
            counts.counts[counter] = counts.counts.get(counter, 0) + round(value)
    return windows, counts
