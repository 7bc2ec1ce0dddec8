"""Greedy selection of an ensemble from out-of-fold predictions."""

import numpy as np
import pytest

from housing.fitting.ensemble_selection import select_ensemble
from housing.schema.column import Matrix, Vector

ACTUAL = np.random.default_rng(0).normal(0, 10, 200)
NOISE = np.random.default_rng(1).normal(0, 3, 200)
FREE, NO_LIMIT = np.zeros((3, 1)), np.array([np.inf])


def loss(predicted: Vector) -> float:
    """Return the RMSE."""
    return float(np.sqrt(np.mean(np.square(predicted - ACTUAL))))


def candidates(*errors: Vector) -> Matrix:
    """Return predictions with these errors."""
    return ACTUAL + np.stack(errors)


def test_candidates_whose_errors_cancel_are_weighted_by_their_size() -> None:
    counts = select_ensemble(candidates(2 * NOISE, -NOISE, 5 * NOISE), loss, FREE, NO_LIMIT)
    assert counts.tolist() == [1, 2, 0]


def test_the_ensemble_is_never_worse_than_the_best_candidate() -> None:
    errors = np.random.default_rng(2).normal(0, 1, (3, 200)) * np.array([[1.0], [4.0], [0.8]])
    counts = select_ensemble(candidates(*errors), loss, FREE, NO_LIMIT)
    assert loss(np.average(candidates(*errors), axis=0, weights=counts)) <= loss(candidates(*errors)[2])
    assert select_ensemble(candidates(NOISE, NOISE, NOISE), loss, FREE, NO_LIMIT).tolist() == [1, 0, 0]


def test_the_costs_of_the_members_together_stay_within_the_limits() -> None:
    predictions, costs = candidates(2 * NOISE, -NOISE, 5 * NOISE), np.array([[60.0], [50.0], [1.0]])
    assert select_ensemble(predictions, loss, costs, np.array([110.0])).tolist() == [1, 2, 0]
    assert select_ensemble(predictions, loss, costs, np.array([50.0])).tolist() == [0, 1, 0]
    assert select_ensemble(predictions, loss, costs, np.array([40.0])).tolist() == [0, 0, 1]


@pytest.mark.parametrize("limit", [0.5, 0.0])
def test_nothing_is_selected_if_each_candidate_exceeds_a_limit(limit: float) -> None:
    costs = np.array([[1.0], [1.0], [1.0]])
    assert not select_ensemble(candidates(NOISE, NOISE, NOISE), loss, costs, np.array([limit])).any()
