"""Error totals of served versions: sums over predictions whose true value is known, and how Prometheus reads them."""

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Self

from housing.server_files import metric_files
from housing.server_files.metric_files import series_key
from server.metrics.model_metrics import version_labels

MAX_VERSIONS = 8  # that have totals of their own; labels of all others are counted as OTHER
OTHER = "other"
MAX_SUM = 1e300
DUPLICATES, UNMATCHED, MALFORMED = "duplicates", "unmatched", "malformed"  # counts that have no version
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

    @property
    def is_finite(self) -> bool:
        """Whether the sums did not overflow, as they would for good after one huge label."""
        return self.sum_squared_error < MAX_SUM

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
COUNTS = {
    "housing_feedback_unmatched_total": (UNMATCHED, "Labels whose prediction is not in the log."),
    "housing_feedback_duplicates_total": (DUPLICATES, "Labels for a row that already has one."),
    "housing_feedback_malformed_lines_total": (MALFORMED, "Skipped lines of feedback, or of predictions with feedback."),
}
DAMAGED_DATABASES = "housing_feedback_damaged_databases_total", "Damaged databases that were set aside and still exist."


def totals_key(origin: Mapping[str, Any]) -> str:
    """Return the key of the totals for a release or an entry of the log: the version, after the model's name if it has one."""
    version: str = origin["version"]
    return f"{origin['name']}:{version}" if "name" in origin else version


def track_version(totals: Mapping[str, ErrorTotals], key: str) -> dict[str, ErrorTotals]:
    """Return the totals with a version as the most recent of at most MAX_VERSIONS versions of its model.

    The totals of the oldest version are dropped, and its later labels are counted as OTHER, so that no published sum decreases.
    """
    recent = {known: value for known, value in totals.items() if known not in (OTHER, key)}
    recent[key] = totals.get(key, ErrorTotals())
    of_model = [known for known in recent if known.rpartition(":")[0] == key.rpartition(":")[0]]
    for oldest in of_model[:-MAX_VERSIONS]:
        del recent[oldest]
    return {OTHER: totals.get(OTHER, ErrorTotals()), **recent}


def publish(directory: Path, totals: Mapping[str, ErrorTotals], counts: Mapping[str, int], damaged_databases: int) -> None:
    """Write the metrics file, which the next scrape reads."""
    metric_files.write_series(directory / METRICS_FILE, dict(_series(totals, counts, damaged_databases)))


def _series(totals: Mapping[str, ErrorTotals], counts: Mapping[str, int], damaged_databases: int) -> Iterator[tuple[str, float]]:
    for name, (count, description) in COUNTS.items():
        yield series_key(name, description, {}), float(counts[count])
    yield series_key(*DAMAGED_DATABASES, {}), float(damaged_databases)
    for name, (field, description) in SERIES.items():
        for key, sums in totals.items():
            model, _, version = key.rpartition(":")
            yield series_key(name, description, version_labels(version, model)), float(getattr(sums, field))
