"""XGBoost callback that reports boosting rounds. A module of its own, since XGBoost takes seconds to import."""

from collections.abc import Callable
from typing import Any

from xgboost.callback import TrainingCallback


class RoundReporter(TrainingCallback):
    """Report each round, with the latest validation score if there are validation rows."""

    def __init__(self, report: Callable[[int, float | None], None]) -> None:
        super().__init__()
        self.report = report

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Report the round. Return False, which lets the fit go on."""
        validation_scores = [scores[-1] for metrics in evals_log.values() for scores in metrics.values()]
        self.report(epoch + 1, validation_scores[-1] if validation_scores else None)
        return False
