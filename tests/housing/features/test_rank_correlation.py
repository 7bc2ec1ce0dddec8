"""Rank correlation against hand-made columns and SciPy."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from housing.features.rank_correlation import rank_correlations


def test_monotone_columns_correlate_fully_and_constant_or_missing_columns_not_at_all() -> None:
    target = np.array([1.0, 2.0, 3.0, 4.0])
    columns = np.column_stack([np.exp(target), -target, np.ones(4), np.full(4, np.nan)])
    assert rank_correlations(columns, target) == pytest.approx([1.0, 1.0, 0.0, 0.0])


def test_ties_and_missing_values_are_treated_as_in_scipy() -> None:
    random = np.random.default_rng(0)
    target, column = random.integers(0, 9, 200).astype(np.float64), random.integers(0, 5, 200).astype(np.float64)
    column[:20] = np.nan
    expected = spearmanr(column[20:], target[20:]).statistic
    assert rank_correlations(column[:, None], target) == pytest.approx([abs(expected)])
