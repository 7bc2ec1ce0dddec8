"""The sequential test of the canary: it detects worse models, seldom accuses equal ones, and holds at every look."""

import numpy as np
import pytest

from housing.evaluation.sequential_test import claims_above_zero, log_evidence, worse_claims
from tests.support.canary_simulation import RULES, enlarged, rules, run_trials
from tests.support.gate_simulation import SIMULATED, Errors, Scenario, equal

TRIALS, HORIZON = 400, 600


def alike(random: np.random.Generator, shape: tuple[int, int]) -> tuple[Errors, Errors]:
    """Return errors of two equal models that agree on most of a row, as two seeds of a model do."""
    row = random.normal(size=shape)
    return row + 0.15 * random.normal(size=shape), row + 0.15 * random.normal(size=shape)


@pytest.mark.parametrize("metric", ["rmse", "mae"])
def test_ten_percent_higher_errors_are_taken_back_before_500_true_values(metric: str) -> None:
    ends = run_trials(enlarged(alike, 1.1), rules(metric), TRIALS, HORIZON)
    assert (ends.is_taken_back & (ends.taken_back < 500)).mean() >= 0.95
    assert not ends.has_taken_over.any()


@pytest.mark.parametrize(
    "scenario", [alike, SIMULATED["equal: lognormal scale"], equal(lambda random, shape: random.standard_cauchy(shape))]
)
def test_equal_models_are_seldom_taken_back_by_looks_at_every_true_value(scenario: Scenario) -> None:
    ends = run_trials(scenario, RULES, TRIALS, HORIZON)
    assert ends.is_taken_back.mean() <= 0.01


def test_a_better_model_takes_over_and_one_at_the_margin_seldom_does() -> None:
    assert run_trials(enlarged(alike, 0.95), RULES, TRIALS, HORIZON).has_taken_over.all()
    assert run_trials(enlarged(alike, 1 + RULES.margin), RULES, TRIALS, HORIZON).has_taken_over.mean() <= 0.025


def test_nothing_is_claimed_with_few_values_or_without_differences() -> None:
    worse = np.full((1, 300), 2.0), np.full((1, 300), 1.0)
    claims = worse_claims(RULES, *worse)[0]
    assert np.argmax(claims) == RULES.min_units - 1
    assert not worse_claims(RULES, worse[0], worse[0]).any()
    assert claims_above_zero(np.empty((1, 0)), 0.01, 10).shape == (1, 0)


def test_the_evidence_does_not_depend_on_the_unit_of_the_losses_and_bets_against_the_data_lose() -> None:
    losses = np.random.default_rng(0).normal(0.2, size=(1, 200))
    assert log_evidence(1000 * losses) == pytest.approx(log_evidence(losses))
    assert log_evidence(losses)[0, -1] > 3 > 0 > log_evidence(-losses)[0, -1]
