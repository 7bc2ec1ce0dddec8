"""Error totals of served versions: sums over predictions whose true value is known, and how Prometheus reads them."""

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Self

from server.metrics import mmap_files
from server.metrics.mmap_files import series_key

MAX_VERSIONS = 8  # that have totals of their own; labels of all others are counted as OTHER
OTHER = "other"
METRICS_FILE = "counter_joiner.db"  # beside the files of the workers; Prometheus' client adds up what begins with "counter"


@dataclass(frozen=True)
class ErrorTotals:
    """Sums over labels that were matched with their predictions."""

    matched: int = 0
    sum_abs_error: float = 0.0
    sum_squared_error: float = 0.0
    intervals: int = 0
    covered: int = 0

    @classmethod
    def from_label(cls, entry: Mapping[str, Any], row: int, value: float) -> Self:
        """Return the totals of one label: the true `value` of a row of an entry of the prediction log."""
        error = entry["predictions"][row] - value
        has_interval = "lower" in entry
        is_covered = has_interval and entry["lower"][row] <= value <= entry["upper"][row]
        return cls(1, abs(error), error * error, int(has_interval), int(is_covered))

    def __add__(self, other: "ErrorTotals") -> "ErrorTotals":
        """Add each sum to its counterpart."""
        return ErrorTotals(*(left + right for left, right in zip(astuple(self), astuple(other), strict=True)))


SERIES = {
    "housing_feedback_matched_total": ("matched", "Labels that were matched with their predictions."),
    "housing_feedback_absolute_error_total": ("sum_abs_error", "Sum of the absolute errors of matched predictions."),
    "housing_feedback_squared_error_total": ("sum_squared_error", "Sum of the squared errors of matched predictions."),
    "housing_feedback_intervals_total": ("intervals", "Matched predictions that had an interval."),
    "housing_feedback_intervals_covered_total": ("covered", "Matched predictions whose interval contains the label."),
}


def track_version(totals: Mapping[str, ErrorTotals], version: str) -> dict[str, ErrorTotals]:
    """Return the totals with `version` as the most recent of at most MAX_VERSIONS versions.

    The totals of the oldest version are dropped, and its later labels are counted as OTHER, so that no published sum decreases.
    """
    recent = {name: value for name, value in totals.items() if name not in (OTHER, version)}
    recent[version] = totals.get(version, ErrorTotals())
    return {OTHER: totals.get(OTHER, ErrorTotals()), **dict(list(recent.items())[-MAX_VERSIONS:])}


def publish(directory: Path, totals: Mapping[str, ErrorTotals], unmatched: int, duplicates: int) -> None:
    """Write the metrics file, which the next scrape reads."""
    mmap_files.write_series(directory / METRICS_FILE, dict(_series(totals, unmatched, duplicates)))


def _series(totals: Mapping[str, ErrorTotals], unmatched: int, duplicates: int) -> Iterator[tuple[str, float]]:
    yield series_key("housing_feedback_unmatched_total", "Labels whose prediction is not in the log.", {}), float(unmatched)
    yield series_key("housing_feedback_duplicates_total", "Labels for a row that already has one.", {}), float(duplicates)
    for name, (field, description) in SERIES.items():
        for version, sums in totals.items():
            yield series_key(name, description, {"version": version}), float(getattr(sums, field))
