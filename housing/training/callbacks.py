"""Telling of the rounds of boosting while they go on."""

from collections.abc import Callable
from typing import Any

from xgboost.callback import TrainingCallback

AfterFold = Callable[[int, int, dict[str, float]], None]  # number of the fold from 1, folds, scores so far


AfterRound = Callable[[str, int, int, float | None], None]  # name of the member, rounds so far, all rounds, score if watched


def silent(*_: Any) -> None:
    """Tell nobody."""


EVERY = 25  # rounds


class _Told(TrainingCallback):
    def __init__(self, tell: Callable[[int, float | None], None]) -> None:
        super().__init__()
        self.tell = tell

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Tell now and then; never stop."""
        if (epoch + 1) % EVERY == 0:
            watched = [scores[-1] for metrics in evals_log.values() for scores in metrics.values()]
            self.tell(epoch + 1, watched[-1] if watched else None)
        return False


def told(name: str, rounds: int, after_round: Callable[[str, int, int, float | None], None]) -> list[TrainingCallback]:
    """Give what XGBoost calls after each round, so that `after_round` hears of some."""
    return [_Told(lambda done, score: after_round(name, done, rounds, score))]
