"""Shapley values, compared with their definition by permutations and their axioms."""

import math
from itertools import permutations

import numpy as np
import pytest

from housing.bundle.bundle import Bundle
from housing.data.table import Table
from housing.explanation.shapley import EXACT, SAMPLED, Predict, shapley_values
from housing.schema.column import Matrix, Vector


def by_definition(predict: Predict, row: Vector, background: Matrix) -> Vector:
    """Return each column's mean change over all orders and background rows."""
    values = np.zeros(len(row))
    for order in permutations(range(len(row))):
        mixed = background.copy()
        value = predict(mixed).mean()
        for column in order:
            mixed[:, column] = row[column]
            values[column] += predict(mixed).mean() - value
            value = predict(mixed).mean()
    return values / math.factorial(len(row))


@pytest.mark.parametrize("index", [0, 7, 300])
def test_exact_values_match_the_definition(bundle: Bundle, rentals: Table, index: int) -> None:
    row = rentals.matrix[index]
    explanation = shapley_values(bundle.predict, row, bundle.background, bundle.schema.texts.owners, 10, 0)
    assert explanation.method == EXACT
    np.testing.assert_allclose(explanation.values, by_definition(bundle.predict, row, bundle.background), atol=1e-3)
    assert explanation.prediction == pytest.approx(bundle.predict(row[None])[0])
    assert explanation.base_value == pytest.approx(bundle.predict(bundle.background).mean())
    assert explanation.base_value + explanation.values.sum() == pytest.approx(explanation.prediction)


@pytest.mark.parametrize("missing", [True, False])
def test_values_add_up_with_missing_values(bundle: Bundle, rentals: Table, missing: bool) -> None:
    row = rentals.matrix[np.isnan(rentals.matrix[:, 4]) == missing][0]
    assert np.isnan(bundle.background[:, 4]).any()
    explanation = shapley_values(bundle.predict, row, bundle.background, bundle.schema.texts.owners, 10, 0)
    assert explanation.base_value + explanation.values.sum() == pytest.approx(explanation.prediction)


def unused(matrix: Matrix) -> Vector:
    """Return a model of four columns that does not look at the last one."""
    return np.clip(3 * matrix[:, 0] + matrix[:, 1] * matrix[:, 2], None, 4.0)


@pytest.mark.parametrize("max_exact", [4, 3])
def test_an_unused_column_contributes_nothing(max_exact: int) -> None:
    random = np.random.default_rng(0)
    explanation = shapley_values(unused, random.normal(size=4), random.normal(size=(5, 4)), np.arange(4), max_exact, 1000)
    assert explanation.method == (EXACT if max_exact == 4 else SAMPLED)
    assert explanation.values[3] == 0.0
    assert np.abs(explanation.values[:3]).min() > 1e-3
    assert explanation.base_value + explanation.values.sum() == pytest.approx(explanation.prediction)


def test_samples_approximate_the_exact_values_and_repeat(bundle: Bundle, rentals: Table) -> None:
    for row in rentals.matrix[:10]:
        exact = shapley_values(bundle.predict, row, bundle.background, bundle.schema.texts.owners, 10, 0)
        sampled, again = (
            shapley_values(bundle.predict, row, bundle.background, bundle.schema.texts.owners, 0, 4096) for _ in range(2)
        )
        assert sampled.method == SAMPLED
        assert 2048 < sampled.rows_evaluated <= 4096
        np.testing.assert_array_equal(sampled.values, again.values)
        np.testing.assert_allclose(sampled.values, exact.values, atol=0.05 * np.abs(exact.values).max())
        assert sampled.base_value + sampled.values.sum() == pytest.approx(sampled.prediction)


def test_columns_that_never_differ_are_not_varied() -> None:
    row, background = np.array([1.0, np.nan, 3.0, 4.0]), np.array([[1.0, np.nan, 0.0, 5.0], [1.0, np.nan, 2.0, 4.0]])

    def first_missing(matrix: Matrix) -> Vector:
        assert np.isnan(matrix[:, 1]).all()
        return matrix[:, 2] * matrix[:, 3]

    explanation = shapley_values(first_missing, row, background, np.arange(len(row)), 2, 0)
    assert explanation.method == EXACT
    assert explanation.rows_evaluated == 4 + 2  # of the second row only one column differs
    np.testing.assert_allclose(explanation.values[[0, 1]], 0.0)
    np.testing.assert_allclose(explanation.values, by_definition(first_missing, row, background))


def test_a_background_row_has_zero_contributions(bundle: Bundle) -> None:
    explanation = shapley_values(bundle.predict, bundle.background[0], bundle.background[:1], bundle.schema.texts.owners, 10, 0)
    np.testing.assert_array_equal(explanation.values, 0.0)
    assert explanation.prediction == explanation.base_value
