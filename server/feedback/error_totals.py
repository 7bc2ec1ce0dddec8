"""What came of feedback, counted by model version, and given to Prometheus."""

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Self

from server.metrics import mmap_files
from server.metrics.mmap_files import series_key

VERSIONS = 8  # that are counted each for itself, besides OTHER


OTHER = "other"


FILE = "counter_joiner.db"  # beside the files of the workers: what can be added up begins with counter


@dataclass(frozen=True)
class Tally:
    """Sums over true values that were matched with their predictions."""

    matched: int = 0
    absolute: float = 0.0
    squared: float = 0.0
    intervals: int = 0
    hits: int = 0

    @classmethod
    def of(cls, entry: Mapping[str, Any], row: int, value: float) -> Self:
        """Count one true value of a row of an entry of the prediction log."""
        error = entry["predictions"][row] - value
        has_interval = "lower" in entry
        hit = has_interval and entry["lower"][row] <= value <= entry["upper"][row]
        return cls(1, abs(error), error * error, int(has_interval), int(hit))

    def __add__(self, other: "Tally") -> "Tally":
        """Add up."""
        return Tally(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))


SERIES = {
    "housing_feedback_matched_total": ("matched", "True values that were matched with their predictions."),
    "housing_feedback_absolute_error_total": ("absolute", "Sum of the absolute errors of matched predictions."),
    "housing_feedback_squared_error_total": ("squared", "Sum of the squared errors of matched predictions."),
    "housing_feedback_intervals_total": ("intervals", "Matched predictions that had an interval."),
    "housing_feedback_intervals_covered_total": ("hits", "Matched predictions whose interval holds the true value."),
}


def put_in_use(tallies: Mapping[str, Tally], version: str) -> dict[str, Tally]:
    """Have a version counted for itself from now on; of the VERSIONS that were in use last, the newest is the last.

    What falls out is counted no more, and what comes for it later is counted as OTHER: no sum that is shown ever sinks.
    """
    latest = {name: tally for name, tally in tallies.items() if name not in (OTHER, version)}
    latest[version] = tallies.get(version, Tally())
    return {OTHER: tallies.get(OTHER, Tally()), **dict(list(latest.items())[-VERSIONS:])}


def show(folder: Path, tallies: Mapping[str, Tally], unmatched: int, repeated: int) -> None:
    """Write the file in which Prometheus' client looks."""
    mmap_files.write_series(folder / FILE, dict(_series(tallies, unmatched, repeated)))


def _series(tallies: Mapping[str, Tally], unmatched: int, repeated: int) -> Iterator[tuple[str, float]]:
    yield series_key("housing_feedback_unmatched_total", "True values whose prediction is not in the log.", {}), float(unmatched)
    yield (
        series_key("housing_feedback_duplicates_total", "True values for a row that had been counted already.", {}),
        float(repeated),
    )
    for name, (field, meaning) in SERIES.items():
        for version, tally in tallies.items():
            yield series_key(name, meaning, {"version": version}), float(getattr(tally, field))
