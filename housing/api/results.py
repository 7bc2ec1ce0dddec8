"""Results of the work of commands, shown as tables in a notebook."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd

from housing.command_line.output import to_json_value
from housing.promotion.decision import Decision
from housing.runs.outcome import Outcome, TrainingResult
from housing.scoring.metrics import as_loss
from housing.sweeps.ranking import best_outcomes


@dataclass(frozen=True)
class FittedRun:
    """A finished run.

    Attributes
    ----------
    outcome
        What the run's folder holds: id, scores, costs, duration.
    """

    outcome: Outcome

    @property
    def id(self) -> str:
        """MLflow's id of the run."""
        return str(self.outcome.run_id)

    @property
    def metrics(self) -> Mapping[str, float]:
        """Scores on the validation rows, and costs."""
        return self.outcome.metrics

    @property
    def reused(self) -> bool:
        """Whether an equal run was finished already, so that nothing was fitted."""
        return self.outcome.reused

    def to_dict(self) -> dict[str, Any]:
        """Return the run as JSON values, as in `jobs` of `housing.train output=json`."""
        return dict(to_json_value(self.outcome))

    def _repr_html_(self) -> str:
        state = "reused" if self.reused else "fitted"
        return f"<p>run <b>{escape(self.id)}</b> {state}: {escape(self.outcome.describe())}</p>{_as_html(self.metrics)}"


@dataclass(frozen=True)
class SweepResult:
    """The jobs of a sweep.

    Attributes
    ----------
    training
        The metric that ranks them, and one outcome for each job that started, in the order of the sweep.
    """

    training: TrainingResult

    @property
    def metric(self) -> str:
        """The metric that ranks the jobs."""
        return self.training.metric

    @property
    def outcomes(self) -> Sequence[Outcome]:
        """One for each job that started, in the order of the sweep."""
        return self.training.jobs

    @property
    def best(self) -> FittedRun:
        """The run with the best metric. Raises ValueError if no job finished, or if jobs were scored on different rows."""
        best = best_outcomes(self.training.jobs, self.metric)
        if len(best) != 1:
            raise ValueError(
                f"Expected one best run (got {len(best)}): jobs that were scored on different rows have no common rank."
            )
        return FittedRun(best[0])

    @property
    def leaderboard(self) -> pd.DataFrame:
        """One row for each job, the best first: overrides, status, metrics, run id, error."""
        rows = [
            {
                "job": outcome.describe(),
                "status": outcome.status,
                **outcome.metrics,
                "run_id": outcome.run_id,
                "error": outcome.error,
            }
            for outcome in self.outcomes
        ]
        frame = pd.DataFrame(rows)
        if self.metric not in frame:
            return frame
        loss = frame[self.metric].map(lambda value: as_loss(self.metric, value))
        return frame.loc[loss.sort_values(kind="stable").index].reset_index(drop=True)

    def to_dict(self) -> dict[str, Any]:
        """Return the jobs as JSON values, as `housing.train output=json` does."""
        return dict(to_json_value(self.training))

    def _repr_html_(self) -> str:
        return str(self.leaderboard.to_html(index=False, float_format="{:.4f}".format, na_rep=""))


@dataclass(frozen=True)
class PromotionResult:
    """A decision about an alias.

    Attributes
    ----------
    decision
        The verdict with all that led to it.
    """

    decision: Decision

    @property
    def verdict(self) -> str:
        """PROMOTE, PENDING, HOLD, REJECT, ROLLBACK, CANARY or TAKE BACK."""
        return self.decision.verdict

    @property
    def version(self) -> str | None:
        """The version at the alias after the decision."""
        return self.decision.version

    def to_dict(self) -> dict[str, Any]:
        """Return the decision as JSON values, as the result of `housing.promote output=json`."""
        return dict(to_json_value(self.decision))

    def _repr_html_(self) -> str:
        reasons = "".join(f"<li>{escape(reason)}</li>" for reason in self.decision.reasons)
        champion = self.decision.champion
        scores = pd.DataFrame({"challenger": self.decision.challenger_metrics, champion: self.decision.champion_metrics})
        moved = f"alias {escape(self.decision.alias)} is at version {escape(str(self.version))}"
        return f"<p><b>{self.verdict}</b>: {moved}</p><ul>{reasons}</ul>{scores.to_html(float_format='{:.4f}'.format)}"


def _as_html(metrics: Mapping[str, float]) -> str:
    return str(pd.DataFrame([dict(metrics)]).to_html(index=False, float_format="{:.4g}".format))
