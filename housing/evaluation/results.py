"""Results of an evaluation: scores, slices, harder splits, interval coverage and limitations."""

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from housing.evaluation.slices import SliceScore


@dataclass(frozen=True)
class DistanceBand:
    """Errors of the rows whose nearest training row is more than `min_km` and at most `max_km` away (None: no limit)."""

    min_km: float
    max_km: float | None
    rows: int
    rmse: float
    mean_error: float


@dataclass(frozen=True)
class HarderSplitResult:
    """Scores of the run's config, refitted on a harder split, on the test rows of that split."""

    split: str
    train_rows: int
    test_rows: int
    scores: dict[str, float]
    distance_bands: list[DistanceBand] = field(default_factory=list)


@dataclass(frozen=True)
class IntervalCoverage:
    """The share of targets inside their prediction interval, and the mean interval width, over one slice."""

    kind: str
    name: str
    rows: int
    coverage: float
    mean_width: float


@dataclass(frozen=True)
class Evaluation:
    """All results for one model, on test rows unless stated otherwise.

    Attributes
    ----------
    rmse_lower, rmse_upper
        95 % bootstrap interval of the RMSE; None for too few rows.
    coverage
        All rows first, then the quintiles of one column.
    limitations
        Sentences that say when the model must not be trusted.
    skipped
        Parts of the evaluation that were not possible, with the reason.
    """

    rows: int
    scores: dict[str, float]
    rmse_lower: float | None
    rmse_upper: float | None
    slices: list[SliceScore]
    harder_splits: list[HarderSplitResult]
    coverage: list[IntervalCoverage]
    limitations: list[str]
    skipped: list[str]

    def metrics(self) -> dict[str, float]:
        """Return the results as MLflow metrics."""
        bounds = {"evaluation_rmse_lower": self.rmse_lower, "evaluation_rmse_upper": self.rmse_upper}
        metrics = {name: bound for name, bound in bounds.items() if bound is not None}
        metrics |= {
            f"evaluation_{result.split}_{name}": value for result in self.harder_splits for name, value in result.scores.items()
        }
        metrics |= {f"evaluation_slice_rmse/{_sanitize(score.kind)}/{_sanitize(score.name)}": score.rmse for score in self.slices}
        for overall in self.coverage[:1]:
            metrics |= {"evaluation_coverage_90": overall.coverage, "evaluation_width_90": overall.mean_width}
        metrics |= {
            f"evaluation_coverage_90/{_sanitize(quintile.kind)}/{_sanitize(quintile.name)}": quintile.coverage
            for quintile in self.coverage[1:]
        }
        return metrics

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as JSON objects."""
        return asdict(self)

    def to_json(self) -> str:
        """Return the evaluation as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Create an evaluation from the return value of `to_dict`."""
        parts = {
            "slices": [SliceScore(**score) for score in content["slices"]],
            "harder_splits": [
                HarderSplitResult(**{**result, "distance_bands": [DistanceBand(**band) for band in result["distance_bands"]]})
                for result in content["harder_splits"]
            ],
            "coverage": [IntervalCoverage(**coverage) for coverage in content["coverage"]],
        }
        return cls(**{**content, **parts})


def _sanitize(text: str) -> str:
    """Replace the characters that MLflow forbids in metric names."""
    return re.sub(r"[^\w.\-]+", "_", text)
