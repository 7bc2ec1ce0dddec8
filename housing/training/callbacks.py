"""Telling of the rounds of boosting while they go on."""

from collections.abc import Callable
from typing import Any

from xgboost.callback import TrainingCallback

OnFold = Callable[[int, int, dict[str, float]], None]  # number of the fold from 1, folds, scores so far


OnRound = Callable[[str, int, int, float | None], None]  # name of the member, rounds so far, all rounds, score if watched


def no_op(*_: Any) -> None:
    """Tell nobody."""


REPORT_EVERY = 25  # rounds


class _RoundReporter(TrainingCallback):
    def __init__(self, report: Callable[[int, float | None], None]) -> None:
        super().__init__()
        self.report = report

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Tell now and then; never stop."""
        if (epoch + 1) % REPORT_EVERY == 0:
            validation_scores = [scores[-1] for metrics in evals_log.values() for scores in metrics.values()]
            self.report(epoch + 1, validation_scores[-1] if validation_scores else None)
        return False


def round_callbacks(name: str, rounds: int, on_round: Callable[[str, int, int, float | None], None]) -> list[TrainingCallback]:
    """Give what XGBoost calls after each round, so that `after_round` hears of some."""
    return [_RoundReporter(lambda done, score: on_round(name, done, rounds, score))]
