"""Background rows: distinct, representative, robust to outliers."""

import numpy as np
import pytest

from housing.data.split import Rows
from housing.data.table import Table
from housing.schema.table_schema import Schema
from housing.training.background import select_background

NUMBERS = {"a": {"type": "float"}, "b": {"type": "float"}, "y": {"type": "float", "role": "target"}}
SCHEMA = Schema.from_dict({"name": "t", "columns": NUMBERS})


def test_the_selection_is_reproducible_and_has_no_duplicates(rentals: Table) -> None:
    matrix = np.vstack([rentals.matrix] * 3)  # more rows than the sample, so that the seed matters
    first, repeated, other_seed = (select_background(rentals.schema, matrix, 16, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, repeated)
    assert not np.array_equal(first, other_seed)
    assert len({row.tobytes() for row in matrix[first]}) == 16


def test_the_selection_is_closer_to_all_rows_than_random_rows() -> None:
    random = np.random.default_rng(0)
    matrix = random.normal(0, 1, (300, 2))

    def mean_distance(rows: Rows) -> float:
        return float(np.abs(matrix[:, None] - matrix[rows]).sum(axis=2).min(axis=1).mean())

    selected = mean_distance(select_background(SCHEMA, matrix, 16, seed=0))
    assert selected < min(mean_distance(random.choice(300, 16, replace=False)) for _ in range(50))


def test_an_outlier_is_not_selected() -> None:
    matrix = np.random.default_rng(0).normal(0, 1, (200, 2))
    matrix[17] = (1e9, -1e9)
    assert 17 not in select_background(SCHEMA, matrix, 8, seed=0)


def test_a_table_with_few_distinct_rows_returns_them() -> None:
    matrix = np.array([[1.0, 2.0], [1.0, 2.0], [3.0, 2.0], [1.0, 2.0]])
    assert sorted(select_background(SCHEMA, matrix, 16, seed=0)) == [0, 2]
    with pytest.raises(ValueError, match="16 medoids of 0 rows"):
        select_background(SCHEMA, matrix[:0], 16, seed=0)


def test_categories_and_missing_values_are_at_the_largest_distance() -> None:
    columns = {
        "kind": {"type": "category", "categories": ["p", "q", "r"], "nullable": True},
        "a": {"type": "float", "nullable": True},
    }
    schema = Schema.from_dict({"name": "t", "columns": {**columns, "y": {"type": "float", "role": "target"}}})
    rows = [[kind, number] for kind in (0.0, 1.0, 2.0, np.nan) for number in (5.0, 5.0, np.nan)]
    selected = np.array(rows)[select_background(schema, np.array(rows), 8, seed=0)]
    assert len({row.tobytes() for row in selected}) == 8
