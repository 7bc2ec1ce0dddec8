"""Gaps of a report: what is unknown, why, and what to switch on."""

import math
from collections.abc import Iterator

from housing.command_line.next_command import next_command
from housing.feedback.error_totals import MALFORMED, UNMATCHED
from housing.monitoring.database import HOUR_SECONDS
from housing.monitoring.request_counters import DROPPED
from housing.monitoring_report.measured import MIN_REQUESTS
from housing.monitoring_report.period_data import PeriodData
from housing.monitoring_report.timeline import time_text


def list_unknown(data: PeriodData) -> list[str]:
    """Return a sentence for each thing that the report does not know, or knows in part only."""
    parts = (_unknown_traffic(data), _unknown_of_monitor(data), _unknown_errors(data), _unknown_decisions(data))
    return [sentence for part in parts for sentence in part]


def version_text(key: str) -> str:
    """Return the words for a version."""
    model, _, version = key.rpartition(":")
    return f"version {version} of {model}" if model else f"version {version}"


def _unknown_traffic(data: PeriodData) -> Iterator[str]:
    if data.log_started_at > data.timeline.since:
        yield (
            f"Requests before {time_text(data.log_started_at)} UTC are not in the log: the server began then, or older files were"
            " removed (serve.log_retention_days, serve.log_backups)."
        )
    if data.traffic.malformed:
        yield f"{data.traffic.malformed:,} damaged lines of the prediction log are left out; their time is unknown."
    dropped = sum(data.request_counts.of_kind(DROPPED).values())
    if dropped:
        yield (
            f"{dropped:,} predictions are missing from the log, because its queue or its disk was full"
            " (docs/how-to/runbook.md#housinglogdropped)."
        )
    without_latency = data.traffic.total.requests - data.traffic.all_latencies.total
    if without_latency:
        yield f"{without_latency:,} entries of the log have no latency; percentiles are of the others."


def _unknown_of_monitor(data: PeriodData) -> Iterator[str]:
    windows, counts = data.windows, data.request_counts
    if "monitor" in data.errors:
        yield f"Drift, estimated errors and refused values are unknown: {data.errors['monitor']}. A running monitor repairs it."
        return
    if not data.has_monitor:
        yield (
            "Drift, estimated errors and refused values are unknown, since the server has no monitor. Start it with one:"
            f" {next_command('serve', 'serve.monitor=true')}"
        )
        return
    # the first hour may have begun before the server, and the last one may not be over
    n_hours = math.ceil(data.timeline.until / HOUR_SECONDS) - math.floor(data.timeline.since / HOUR_SECONDS)
    if len(counts.hours) < n_hours:
        yield (
            f"Refused values and failed requests are known for {len(counts.hours):,} of {n_hours:,} hours, in which the monitor"
            " ran."
        )
    has_windows = bool(windows.estimates or windows.drift or windows.no_estimate or windows.no_drift)
    if not has_windows:
        yield (
            "Drift and estimated errors are unknown: no window of rows was full. Wait for more rows, or let windows have fewer"
            " (serve.monitor_window_rows)."
        )
    for key in sorted(windows.no_estimate):
        yield (
            f"The error of {version_text(key)} cannot be estimated: it was trained with interval=none or by an earlier program."
            " Train it again with interval=scaled."
        )
    for key in sorted(windows.no_drift):
        yield (
            f"The multivariate drift of {version_text(key)} is unknown: its bundle has too few training rows to compare with."
            " Train it again with n_sample_rows=1000."
        )


def _unknown_errors(data: PeriodData) -> Iterator[str]:
    counts = data.feedback_counts
    if "feedback" in data.errors:
        yield f"How much feedback was unmatched is unknown: {data.errors['feedback']}."
    if not data.realised:
        yield (
            "Realised errors are unknown: no true value has arrived for a request of this period. Send them to POST /feedback"
            " (docs/how-to/collect-feedback.md)."
        )
    for key, errors in data.realised.items():
        if errors.requests < MIN_REQUESTS:
            yield (
                f"The realised error of {version_text(key)} is uncertain: its {errors.labels:,} true values are of"
                f" {errors.requests:,} requests. Intervals need {MIN_REQUESTS}."
            )
    if data.malformed_labels:
        yield f"{data.malformed_labels:,} damaged lines with true values are left out."
    if counts.get(UNMATCHED) or counts.get(MALFORMED):
        yield (
            f"Of all feedback so far, not only of this period, {counts[UNMATCHED]:,} true values have no request in the log and"
            f" {counts[MALFORMED]:,} lines are damaged."
        )


def _unknown_decisions(data: PeriodData) -> Iterator[str]:
    if "decisions" in data.errors:
        yield f"Decisions are unknown: {data.errors['decisions']}"
