"""What an honest evaluation finds, as figures that can be kept."""

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from housing.evaluation.slices import Slice


@dataclass(frozen=True)
class Ring:
    """Rows whose nearest training row is so far away: more than `above` km, `up_to` at most (None: however far)."""

    above: float
    up_to: float | None
    rows: int
    rmse: float
    mean_error: float


@dataclass(frozen=True)
class Elsewhere:
    """The run's config fitted once more, on a split of its own, and scored on the test rows of that."""

    split: str
    train_rows: int
    test_rows: int
    scores: dict[str, float]
    rings: list[Ring] = field(default_factory=list)


@dataclass(frozen=True)
class Covered:
    """The share of targets that lie in their interval, and its mean width, over some rows."""

    kind: str
    name: str
    rows: int
    share: float
    width: float


@dataclass(frozen=True)
class Honest:
    """The figures of one model, on test rows unless told otherwise."""

    rows: int
    scores: dict[str, float]
    low: float  # of the RMSE: 95 % of resamples of the rows lie between
    high: float
    slices: list[Slice]
    elsewhere: list[Elsewhere]
    coverage: list[Covered]  # all rows first, then fifths of a column
    not_to_trust: list[str]
    left_out: list[str]  # what could not be had, and why

    def metrics(self) -> dict[str, float]:
        """Give the figures by name, as MLflow takes them."""
        found = {"honest_rmse_low": self.low, "honest_rmse_high": self.high}
        found |= {f"honest_{one.split}_{name}": value for one in self.elsewhere for name, value in one.scores.items()}
        found |= {f"honest_slice_rmse/{_word(one.kind)}/{_word(one.name)}": one.rmse for one in self.slices}
        for one in self.coverage[:1]:
            found |= {"honest_coverage_90": one.share, "honest_width_90": one.width}
        found |= {f"honest_coverage_90/{_word(one.kind)}/{_word(one.name)}": one.share for one in self.coverage[1:]}
        return found

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON takes it."""
        return asdict(self)

    def to_json(self) -> str:
        """Give it as text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_dict(cls, kept: dict[str, Any]) -> Self:
        """Read what `to_dict` gave."""
        parts = {
            "slices": [Slice(**one) for one in kept["slices"]],
            "elsewhere": [Elsewhere(**{**one, "rings": [Ring(**ring) for ring in one["rings"]]}) for one in kept["elsewhere"]],
            "coverage": [Covered(**one) for one in kept["coverage"]],
        }
        return cls(**{**kept, **parts})


def _word(text: str) -> str:
    return re.sub(r"[^\w.\-]+", "_", text)
