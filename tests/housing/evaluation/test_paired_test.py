"""The paired test: its error rates at every number of rows, its bounds, and the rows that carry a difference."""

import numpy as np
import pytest

from housing.evaluation import paired_test as paired
from housing.evaluation.paired_test import ComparisonSettings, count_half_rows, paired_test, sign_flip_p_value
from housing.schema.column import Vector

SETTINGS = ComparisonSettings("rmse", 0.975, n_resamples=999, seed=0)
REPETITIONS = 400


def equal_errors(random: np.random.Generator, rows: int) -> tuple[Vector, Vector]:
    """Return errors of two equal models on rows whose scale has a heavy tail."""
    scale = np.exp(random.normal(0, 1.5, rows))
    return scale * random.normal(1, 0.2, rows), scale * random.normal(1, 0.2, rows)


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 20, 100])
def test_equal_models_are_rarely_called_better_or_worse_at_any_number_of_rows(rows: int) -> None:
    random = np.random.default_rng(rows)
    results = [paired_test(SETTINGS, *equal_errors(random, rows)) for _ in range(REPETITIONS)]
    assert sum(result.is_better for result in results) <= 0.025 * REPETITIONS
    assert sum(result.is_worse for result in results) <= 0.025 * REPETITIONS


def test_a_challenger_with_rare_large_errors_is_rarely_called_better_than_an_equal_champion() -> None:
    random = np.random.default_rng(0)
    errors = [(random.standard_t(5, 100) / np.sqrt(5 / 3), random.normal(0, 1, 100)) for _ in range(REPETITIONS)]
    assert sum(paired_test(SETTINGS, *pair).is_better for pair in errors) <= 0.04 * REPETITIONS


def test_too_few_rows_have_no_bounds() -> None:
    result = paired_test(ComparisonSettings("rmse", 0.975, 999, 0, min_rows=30), np.full(29, 0.1), np.ones(29))
    assert result.lower is None and result.upper is None and not result.is_better
    assert result.difference == pytest.approx(-0.9)


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
    assert count_half_rows(losses) == 2
    assert count_half_rows(np.full(100, 1.0)) == 50
    assert count_half_rows(np.array([1.0, -1.0])) == 0


def test_the_rows_needed_shrink_with_the_square_of_the_difference() -> None:
    random = np.random.default_rng(2)
    champion, noise = random.normal(0, 1, 4000), random.normal(0, 0.2, 4000) / np.sqrt(1.04)
    small, large = (
        paired_test(SETTINGS, (1 - share) * (champion / np.sqrt(1.04) + noise), champion).rows_needed for share in (0.05, 0.1)
    )
    assert small is not None and large is not None
    assert 2.5 < small / large < 6
