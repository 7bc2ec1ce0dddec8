"""What an honest evaluation finds, as figures that can be kept."""

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from housing.evaluation.slices import SliceScore


@dataclass(frozen=True)
class DistanceBand:
    """Rows whose nearest training row is so far away: more than `above` km, `up_to` at most (None: however far)."""

    min_km: float
    max_km: float | None
    rows: int
    rmse: float
    mean_error: float


@dataclass(frozen=True)
class HarderSplitResult:
    """The run's config fitted once more, on a split of its own, and scored on the test rows of that."""

    split: str
    train_rows: int
    test_rows: int
    scores: dict[str, float]
    distance_bands: list[DistanceBand] = field(default_factory=list)


@dataclass(frozen=True)
class IntervalCoverage:
    """The share of targets that lie in their interval, and its mean width, over some rows."""

    kind: str
    name: str
    rows: int
    coverage: float
    mean_width: float


@dataclass(frozen=True)
class Evaluation:
    """The figures of one model, on test rows unless told otherwise."""

    rows: int
    scores: dict[str, float]
    rmse_lower: float  # of the RMSE: 95 % of resamples of the rows lie between
    rmse_upper: float
    slices: list[SliceScore]
    harder_splits: list[HarderSplitResult]
    coverage: list[IntervalCoverage]  # all rows first, then fifths of a column
    limitations: list[str]
    skipped: list[str]  # what could not be had, and why

    def metrics(self) -> dict[str, float]:
        """Give the figures by name, as MLflow takes them."""
        found = {"evaluation_rmse_lower": self.rmse_lower, "evaluation_rmse_upper": self.rmse_upper}
        found |= {f"evaluation_{one.split}_{name}": value for one in self.harder_splits for name, value in one.scores.items()}
        found |= {f"evaluation_slice_rmse/{_sanitize(one.kind)}/{_sanitize(one.name)}": one.rmse for one in self.slices}
        for one in self.coverage[:1]:
            found |= {"evaluation_coverage_90": one.coverage, "evaluation_width_90": one.mean_width}
        found |= {
            f"evaluation_coverage_90/{_sanitize(one.kind)}/{_sanitize(one.name)}": one.coverage for one in self.coverage[1:]
        }
        return found

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON takes it."""
        return asdict(self)

    def to_json(self) -> str:
        """Give it as text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Read what `to_dict` gave."""
        parts = {
            "slices": [SliceScore(**one) for one in content["slices"]],
            "elsewhere": [
                HarderSplitResult(**{**one, "distance_bands": [DistanceBand(**ring) for ring in one["distance_bands"]]})
                for one in content["harder_splits"]
            ],
            "coverage": [IntervalCoverage(**one) for one in content["coverage"]],
        }
        return cls(**{**content, **parts})


def _sanitize(text: str) -> str:
    return re.sub(r"[^\w.\-]+", "_", text)
