"""The paired test: its error rates at every number of rows, its bounds, and the rows that carry a difference."""

import numpy as np
import pytest
from scipy.stats import binom

from housing.evaluation import paired_test as paired
from housing.evaluation.paired_test import ComparisonSettings, count_half_units, paired_test, sign_flip_p_value
from tests.support.gate_simulation import SIMULATED, SIMULATED_MAE, count_claims

SETTINGS = ComparisonSettings("rmse", 0.975, n_resamples=999, seed=0)
FALSE_RATE = 0.025
SAMPLES = 1000
MANY_SAMPLES = 4000
SIZES = (100, 200, 500, 1000, 2000, 5000)


def most_claims(samples: int) -> int:
    """Return the number of false claims that a correct test exceeds once in 10,000 simulations."""
    return int(binom.ppf(0.9999, samples, FALSE_RATE))


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 20, 100])
def test_equal_models_are_rarely_called_better_or_worse_at_any_number_of_rows(rows: int) -> None:
    random, errors = np.random.default_rng(rows), SIMULATED["equal: lognormal scale"]
    results = [paired_test(SETTINGS, *(error[0] for error in errors(random, (1, rows)))) for _ in range(400)]
    assert sum(result.is_better for result in results) <= most_claims(400)
    assert sum(result.is_worse for result in results) <= most_claims(400)


@pytest.mark.parametrize("name", SIMULATED)
def test_models_of_equal_error_are_rarely_called_better_or_worse(name: str) -> None:
    assert count_claims(SIMULATED[name], 300, SAMPLES).most() <= most_claims(SAMPLES)


@pytest.mark.long
@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("name", SIMULATED)
def test_models_of_equal_rmse_are_rarely_called_better_or_worse_at_any_size(name: str, rows: int) -> None:
    assert count_claims(SIMULATED[name], rows, MANY_SAMPLES).most() <= most_claims(MANY_SAMPLES)


@pytest.mark.long
@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("name", SIMULATED_MAE)
def test_models_of_equal_mae_are_rarely_called_better_or_worse_at_any_size(name: str, rows: int) -> None:
    assert count_claims(SIMULATED_MAE[name], rows, MANY_SAMPLES, "mae").most() <= most_claims(MANY_SAMPLES)


@pytest.mark.parametrize("name", SIMULATED_MAE)
def test_models_of_equal_mae_are_rarely_called_better_or_worse(name: str) -> None:
    assert count_claims(SIMULATED_MAE[name], 300, SAMPLES, "mae").most() <= most_claims(SAMPLES)


@pytest.mark.parametrize("name", ["equal: normal", "Student t, 4 df"])
def test_one_of_many_slices_is_rarely_called_better_or_worse(name: str) -> None:
    assert count_claims(SIMULATED[name], 250, SAMPLES, slices=20).most() <= most_claims(SAMPLES)


def test_skewed_differences_need_the_contradicting_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    skewed = SIMULATED["Student t, 4 df"]
    assert count_claims(skewed, 300, SAMPLES).most() <= most_claims(SAMPLES)
    monkeypatch.setattr(paired, "CONTRADICTING_ROWS", 0)
    assert count_claims(skewed, 300, SAMPLES).most() > most_claims(SAMPLES)


def test_a_difference_that_one_more_large_error_could_reverse_is_fragile() -> None:
    champion, challenger = np.full(200, 0.1), np.zeros(200)
    settings = ComparisonSettings("mae", 0.975, n_resamples=999, seed=0)
    assert paired_test(settings, challenger, champion).is_better
    challenger[0] = 6.0
    result = paired_test(settings, challenger, champion)
    assert result.is_fragile and not result.is_better
    assert not paired_test(settings, champion, champion).is_fragile


def test_too_few_rows_have_no_bounds() -> None:
    result = paired_test(ComparisonSettings("rmse", 0.975, 999, 0, min_units=30), np.full(29, 0.1), np.ones(29))
    assert result.lower is None and result.upper is None and not result.is_better
    assert result.difference == pytest.approx(-0.9)


def test_equal_differences_in_all_rows_have_bounds() -> None:
    better, worse = (paired_test(SETTINGS, np.full(128, error), np.ones(128)) for error in (0.5, 2.0))
    assert better.is_better and worse.is_worse


def test_bounds_hold_the_difference_and_swap_with_the_models() -> None:
    random = np.random.default_rng(1)
    champion = random.normal(0, 1, 1000)
    challenger = 0.9 * (champion + random.normal(0, 0.2, 1000)) / np.sqrt(1.04)
    better, worse = paired_test(SETTINGS, challenger, champion), paired_test(SETTINGS, champion, challenger)
    assert better.is_better and worse.is_worse
    assert better.lower is not None and better.upper is not None
    assert better.lower < better.difference < better.upper < 0
    assert better == paired_test(SETTINGS, challenger, champion)


def test_the_sign_flip_test_counts_the_flips_as_low_as_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.array([-1.0, -2.0, -3.0, -4.0])
    assert sign_flip_p_value(values, 100_000, seed=0) == pytest.approx(1 / 16, abs=0.005)
    one_batch = sign_flip_p_value(values, 1000, seed=0)
    monkeypatch.setattr(paired, "BATCH_SIZE", 28)
    assert sign_flip_p_value(values, 1000, seed=0) == pytest.approx(one_batch, abs=0.03)


def test_few_rows_that_carry_half_of_the_difference_are_counted() -> None:
    losses = np.full(4000, -0.001)
    losses[:3] = -5.0
    assert count_half_units(losses) == 2
    assert count_half_units(np.full(100, 1.0)) == 50
    assert count_half_units(np.array([1.0, -1.0])) == 0


def test_the_units_needed_shrink_with_the_square_of_the_difference() -> None:
    random = np.random.default_rng(2)
    champion, noise = random.normal(0, 1, 4000), random.normal(0, 0.2, 4000) / np.sqrt(1.04)
    small, large = (
        paired_test(SETTINGS, (1 - share) * (champion / np.sqrt(1.04) + noise), champion).units_needed for share in (0.05, 0.1)
    )
    assert small is not None and large is not None
    assert 2.5 < small / large < 6
