"""Sums, samples and groups: the parts of a replay that need no server."""

import numpy as np
import pytest

from housing.bundle.bundle import Bundle
from housing.data.table import Table
from housing.traffic.differences import SAMPLE_ROWS, Differences, Sample
from housing.traffic.labelled_rows import LabelledRows, hash_rows


def test_sums_do_not_depend_on_the_batches(bundle: Bundle, rentals: Table) -> None:
    random = np.random.default_rng(0)
    logged = random.normal(500, 50, len(rentals.matrix))
    candidate = logged + random.normal(3, 5, len(logged))
    whole, parts = Differences(bundle), Differences(bundle)
    whole.add("1", rentals.matrix, candidate, logged)
    for rows in np.array_split(np.arange(len(logged)), 7):
        parts.add("1", rentals.matrix[rows], candidate[rows], logged[rows])
    assert vars(parts.overall) == pytest.approx(vars(whole.overall))
    assert [column.name for column in parts.by_column()] == [column.name for column in whole.by_column()]
    assert parts.quantiles((0.5, 0.9)) == pytest.approx(np.quantile(abs(candidate - logged), (0.5, 0.9)).tolist())


def test_a_column_explains_a_difference_that_depends_on_it_alone(bundle: Bundle, rentals: Table) -> None:
    differences = Differences(bundle)
    furnished = rentals.matrix[:, rentals.schema.index("furnished")]
    logged = np.full(len(furnished), 500.0)
    differences.add("1", rentals.matrix, logged + 10 * furnished, logged)
    first, *others = differences.by_column()
    assert first.name == "furnished"
    assert first.explained == pytest.approx(1.0)
    assert all(column.explained < 0.2 for column in others)
    equal = Differences(bundle)
    equal.add("1", rentals.matrix, logged + 10, logged)
    assert [column.explained for column in equal.by_column()] == [0.0] * 5  # nothing differs between rows


def test_every_row_of_a_stream_has_the_same_chance_to_be_sampled() -> None:
    sample, n_rows = Sample(1), 20 * SAMPLE_ROWS
    for rows in np.array_split(np.arange(n_rows, dtype=float), 50):
        sample.add(rows[:, None])
    sampled = sample.rows[:, 0]
    assert len(np.unique(sampled)) == len(sampled) == SAMPLE_ROWS
    in_tenth = np.histogram(sampled, 10, (0, n_rows))[0]
    assert abs(in_tenth - SAMPLE_ROWS / 10).max() < 5 * np.sqrt(SAMPLE_ROWS / 10)


def test_labels_of_one_request_or_with_equal_features_are_one_group() -> None:
    matrix = np.array([[1.0, np.nan], [2.0, 0.0], [2.0, -0.0], [3.0, 1.0], [4.0, 1.0], [1.0, np.nan]])
    request = np.array([b"a", b"a", b"b", b"c", b"d", b"d"], dtype="S24")  # a-b share a row, a-d too; c is alone
    numbers = np.arange(6.0)
    units = LabelledRows(request, hash_rows(matrix), numbers, numbers, numbers, numbers).units
    assert (units.count(), len(set(units.of_row[[0, 1, 2, 4, 5]]))) == (2, 1)
