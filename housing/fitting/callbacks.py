"""Callbacks that report the progress of a fit."""

from collections.abc import Callable
from typing import Any

from housing.scoring.holdout import HoldoutPredictions

OnFold = Callable[[int, int, dict[str, float]], None]  # fold number from 1, number of folds, scores over the folds so far
OnRound = Callable[[str, int, int, float | None], None]  # member, boosting rounds done, all rounds, validation score if any
OnFit = Callable[[HoldoutPredictions], None]


def no_op(*_: Any) -> None:
    """Do nothing."""
