"""The state of the shadow: how far it has read the log, and its totals by version. Both are written together."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from housing.core.files import atomic_write
from housing.server_files import metric_files
from housing.server_files.metric_files import series_key

STATE_FILE = "shadow.json"  # in the log directory
METRICS_FILE = "counter_shadow-totals.db"  # beside the files of the workers
LAG_FILE = "gauge_max_shadow.db"  # unread bytes, beside the files of the workers
MAX_VERSIONS = 8  # candidates with totals; those of older ones are dropped

SERIES = {  # in the order of Totals.values
    "housing_shadow_rows_total": "Logged rows that the candidate predicted.",
    "housing_shadow_refused_rows_total": "Logged rows that the candidate's schema refuses.",
    "housing_shadow_absolute_difference_total": "Sum of the absolute differences of candidate and answer.",
    "housing_shadow_squared_difference_total": "Sum of the squared differences of candidate and answer.",
    "housing_shadow_cpu_seconds_total": "Processor time of the candidate's validation and prediction.",
    "housing_shadow_labels_total": "True values of rows that the candidate accepts.",
    "housing_shadow_squared_error_total": "Sum of the squared errors of the candidate.",
    "housing_shadow_answer_squared_error_total": "Sum of the squared errors of the answers, on the labels of the candidate.",
}
MALFORMED_LINES = "housing_shadow_malformed_lines_total", "Damaged lines of the prediction log or of the joined rows."
UNREAD_BYTES = "housing_shadow_unread_bytes", "Bytes of the log that the shadow has not read yet."


@dataclass
class Totals:
    """Sums of one candidate over logged rows and true values."""

    rows: int = 0
    refused: int = 0
    sum_abs_difference: float = 0.0
    sum_squared_difference: float = 0.0
    cpu_seconds: float = 0.0
    labels: int = 0
    sum_squared_error: float = 0.0
    sum_squared_answer_error: float = 0.0

    def values(self) -> tuple[float, ...]:
        """Return the values of the series, in the order of SERIES."""
        rows = self.rows, self.refused, self.sum_abs_difference, self.sum_squared_difference, self.cpu_seconds
        return (*rows, self.labels, self.sum_squared_error, self.sum_squared_answer_error)


@dataclass
class ShadowState:
    """The position and the totals from which a restarted shadow continues.

    Attributes
    ----------
    offsets
        How many bytes of each file are read.
    totals
        Totals by version of the candidate, the most recent version last.
    malformed
        The number of damaged lines.
    """

    offsets: dict[str, int] = field(default_factory=dict)
    totals: dict[str, Totals] = field(default_factory=dict)
    malformed: int = 0

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """Read the state of a log directory. Return None if there is none. Raises ValueError if it is damaged."""
        path = directory / STATE_FILE
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            totals = {str(version): Totals(**sums) for version, sums in content["totals"].items()}
            return cls({str(name): int(offset) for name, offset in content["offsets"].items()}, totals, int(content["malformed"]))
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error

    def write(self, directory: Path) -> None:
        """Write the state atomically."""
        with atomic_write(directory / STATE_FILE) as partial:
            partial.write_text(json.dumps(asdict(self)), encoding="utf-8")

    def track(self, version: str) -> Totals:
        """Return the totals of a version, which becomes the most recent of at most MAX_VERSIONS."""
        totals = self.totals.pop(version, Totals())
        self.totals = {**dict(list(self.totals.items())[-MAX_VERSIONS + 1 :]), version: totals}
        return totals

    def publish(self, metrics_dir: Path, unread: int) -> None:
        """Write the metrics files, which the next scrape reads."""
        metric_files.write_series(metrics_dir / METRICS_FILE, dict(self._series()))
        metric_files.write_series(metrics_dir / LAG_FILE, {series_key(*UNREAD_BYTES, {}): float(unread)})

    def _series(self) -> Iterator[tuple[str, float]]:
        yield series_key(*MALFORMED_LINES, {}), float(self.malformed)
        for version, totals in self.totals.items():
            for (name, description), value in zip(SERIES.items(), totals.values(), strict=True):
                yield series_key(name, description, {"version": version}), float(value)
