"""Bootstrap intervals: their width against theory and against fresh samples, and their reproducibility."""

import numpy as np
import pytest

from housing.evaluation.bootstrap import bootstrap_interval, paired_bootstrap
from housing.schema.column import Vector

ROWS = 1000


def correlated_errors(random: np.random.Generator, rows: int = ROWS) -> tuple[Vector, Vector]:
    """Return errors of two models, of which the first is better by 2 %."""
    champion = random.standard_t(5, rows)
    return 0.98 * (champion + random.normal(0, 0.25, rows)) / np.sqrt(1.04), champion


def test_rmse_interval_is_as_wide_as_theory_says_and_reproducible() -> None:
    error = np.random.default_rng(1).normal(0, 1, 4000)
    lower, upper = bootstrap_interval(error, "rmse", 0.95, 1000, seed=0)
    assert (lower, upper) == bootstrap_interval(error, "rmse", 0.95, 1000, seed=0)
    assert lower < np.sqrt(np.mean(error**2)) < upper
    assert upper - lower == pytest.approx(2 * 1.96 / np.sqrt(2 * 4000), rel=0.15)  # standard error of a standard deviation
    assert bootstrap_interval(np.full(10, 3.0), "rmse", 0.95, 100, seed=0) == (3.0, 3.0)


def test_mae_interval_holds_the_mae() -> None:
    error = np.random.default_rng(1).normal(0, 1, 4000)
    lower, upper = bootstrap_interval(error, "mae", 0.95, 1000, seed=0)
    assert lower < np.mean(np.abs(error)) < upper < 1


def test_paired_differences_spread_like_those_of_fresh_rows() -> None:
    random = np.random.default_rng(0)
    challenger, champion = correlated_errors(random)
    result = paired_bootstrap(challenger, champion, "rmse", confidence=0.975, n_resamples=4000, seed=3)
    assert result.difference == pytest.approx(np.sqrt(np.mean(challenger**2)) - np.sqrt(np.mean(champion**2)))
    fresh = [correlated_errors(random) for _ in range(2000)]
    differences = [np.sqrt(np.mean(first**2)) - np.sqrt(np.mean(second**2)) for first, second in fresh]
    assert result.upper - result.lower == pytest.approx(np.subtract(*np.quantile(differences, [0.975, 0.025])), rel=0.2)
    assert result == paired_bootstrap(challenger, champion, "rmse", 0.975, 4000, seed=3)
    assert result != paired_bootstrap(challenger, champion, "rmse", 0.975, 4000, seed=4)


def test_batches_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    challenger, champion = correlated_errors(np.random.default_rng(0), rows=100)
    monkeypatch.setattr("housing.evaluation.bootstrap.BATCH_SIZE", 100 * 1000)
    one_batch = paired_bootstrap(challenger, champion, "rmse", 0.975, n_resamples=1000, seed=0)
    monkeypatch.setattr("housing.evaluation.bootstrap.BATCH_SIZE", 100 * 7)
    assert paired_bootstrap(challenger, champion, "rmse", 0.975, n_resamples=1000, seed=0) == one_batch
