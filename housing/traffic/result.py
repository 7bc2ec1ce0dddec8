"""The result of a replay, as numbers for people, MLflow and programs."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from housing.traffic.candidate import CandidateCounts
from housing.traffic.differences import Differences
from housing.traffic.errors import ErrorComparison
from housing.traffic.logged_rows import LogCounts

QUANTILES = (0.5, 0.9, 0.99)  # of the absolute differences


@dataclass(frozen=True)
class ReplayDocument:
    """A replay for programs: its page, and its numbers by name."""

    page: Path
    numbers: dict[str, Any]


@dataclass(frozen=True)
class ReplayResult:
    """The numbers of a replay.

    Attributes
    ----------
    name
        The candidate, such as "version 7".
    period
        The time range of the requests, in words.
    log
        Entries and damaged lines.
    candidate
        Predicted and refused rows, and their processor time.
    alone_us
        Processor time of the prediction of a single row, in microseconds; None if none was predicted.
    differences
        Candidate minus logged predictions.
    errors
        The comparison of errors on true values.
    refused_labels
        True values whose row the candidate refuses.
    """

    name: str
    period: str
    log: LogCounts
    candidate: CandidateCounts
    alone_us: float | None
    differences: Differences
    errors: ErrorComparison
    refused_labels: int

    @property
    def rows(self) -> int:
        """The number of logged rows."""
        return self.candidate.predicted + self.candidate.refused

    @property
    def validation_us(self) -> float:
        """Processor time of the validation of a row in a batch, in microseconds."""
        return 1e6 * self.candidate.validation_seconds / max(self.rows, 1)

    @property
    def prediction_us(self) -> float:
        """Processor time of the prediction of a row in a batch, in microseconds."""
        return 1e6 * self.candidate.prediction_seconds / max(self.candidate.predicted, 1)

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the candidate's run."""
        return {f"replay_{name}": float(value) for name, value in self._metrics()}

    def _metrics(self) -> Iterator[tuple[str, float]]:
        yield from (("rows", self.rows), ("refused_rows", self.candidate.refused), ("malformed_lines", self.log.malformed))
        if self.candidate.predicted:
            overall = self.differences.overall
            yield from (("mean_difference", overall.mean), ("mean_absolute_difference", overall.mean_absolute))
            yield from (("rms_difference", overall.rms), ("max_difference", self.differences.largest))
            yield from (("validation_us", self.validation_us), ("prediction_us", self.prediction_us))
        if self.errors.difference is not None:
            compared = self.errors.difference
            yield from (("labels", compared.rows), (self.errors.metric, compared.challenger_score))
            yield from ((f"logged_{self.errors.metric}", compared.champion_score), ("error_difference", compared.difference))

    def to_dict(self) -> dict[str, Any]:
        """Return the result for programs."""
        return {
            "candidate": self.name,
            "period": self.period,
            **self.metrics(),
            "refused_by_reason": [
                {"column": column, "reason": reason, "rows": rows}
                for (column, reason), rows in self.candidate.reasons.most_common()
            ],
            "by_version": {version: asdict(summary) for version, summary in self.differences.by_version().items()},
            "by_column": [asdict(column) for column in self.differences.by_column() if column.bins],
            "errors": {"sentence": self.errors.sentence, **asdict(self.errors), "refused": self.refused_labels},
        }
