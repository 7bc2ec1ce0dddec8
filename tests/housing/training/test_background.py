"""The rows that stand for a table."""

import numpy as np
import pytest

from housing.data.split import Rows
from housing.data.table import Table
from housing.schema.table_schema import Schema
from housing.training.background import select_background

NUMBERS = {"a": {"type": "float"}, "b": {"type": "float"}, "y": {"type": "float", "role": "target"}}
SCHEMA = Schema.from_dict({"name": "t", "columns": NUMBERS})


def test_they_are_the_same_rows_each_time_and_no_two_are_alike(rentals: Table) -> None:
    matrix = np.vstack([rentals.matrix] * 3)  # more rows than are compared, so that the seed decides
    one, again, other = (select_background(rentals.schema, matrix, 16, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert len({row.tobytes() for row in matrix[one]}) == 16


def test_they_lie_nearer_to_all_rows_than_rows_picked_by_chance() -> None:
    random = np.random.default_rng(0)
    matrix = random.normal(0, 1, (300, 2))

    def way(rows: Rows) -> float:
        return float(np.abs(matrix[:, None] - matrix[rows]).sum(axis=2).min(axis=1).mean())

    picked = way(select_background(SCHEMA, matrix, 16, seed=0))
    assert picked < min(way(random.choice(300, 16, replace=False)) for _ in range(50))


def test_one_enormous_value_is_not_taken() -> None:
    matrix = np.random.default_rng(0).normal(0, 1, (200, 2))
    matrix[17] = (1e9, -1e9)
    assert 17 not in select_background(SCHEMA, matrix, 8, seed=0)


def test_a_table_with_fewer_different_rows_gives_these() -> None:
    matrix = np.array([[1.0, 2.0], [1.0, 2.0], [3.0, 2.0], [1.0, 2.0]])
    assert sorted(select_background(SCHEMA, matrix, 16, seed=0)) == [0, 2]
    with pytest.raises(ValueError, match="16 medoids of 0 rows"):
        select_background(SCHEMA, matrix[:0], 16, seed=0)


def test_categories_and_missing_values_are_as_far_apart_as_can_be() -> None:
    columns = {
        "kind": {"type": "category", "categories": ["p", "q", "r"], "nullable": True},
        "a": {"type": "float", "nullable": True},
    }
    schema = Schema.from_dict({"name": "t", "columns": {**columns, "y": {"type": "float", "role": "target"}}})
    levels = [[kind, number] for kind in (0.0, 1.0, 2.0, np.nan) for number in (5.0, 5.0, np.nan)]
    chosen = np.array(levels)[select_background(schema, np.array(levels), 8, seed=0)]
    assert len({row.tobytes() for row in chosen}) == 8
