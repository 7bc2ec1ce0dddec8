"""Histogram bins: equal to numpy's for any column and any training rows."""

from typing import Any

import numpy as np
import pytest

from housing.data.table import Table
from housing.schema.binning import Binning
from housing.schema.column import Vector
from housing.schema.histogram import bin_counts, histogram_reference
from housing.schema.table_schema import Schema
from tests.support.tables import rentals_frame

FIRST = 3  # index of the first counter of a bin
TARGET = {"y": {"type": "float", "role": "target"}}


def count_bins(schema: Schema, reference: Any, matrix: Any, predictions: Any) -> dict[tuple[str | None, str], int]:
    """Return the counts by column and bin. Values out of the training range are in the bin `outside`."""
    binning = Binning(schema, reference, FIRST)
    names = [(bin_.column, bin_.name) for bin_ in binning.bins] + [(name, "outside") for name in binning.numeric_columns]
    counts = binning.count(np.asarray(matrix, dtype=float), np.asarray(predictions, dtype=float))[FIRST:]
    return {name: int(count) for name, count in zip(names, counts, strict=True)}


def count_column(attributes: dict[str, Any], training: Any, values: Any) -> dict[str, int]:
    """Return the counts of the values of a table with a single column."""
    schema = Schema.from_dict({"name": "t", "columns": {"x": attributes, **TARGET}})
    reference = histogram_reference(schema, np.array(training, dtype=float)[:, None], np.zeros(len(training)))
    counts = count_bins(schema, reference, np.array(values, dtype=float)[:, None], np.zeros(len(values)))
    return {bin_: count for (column, bin_), count in counts.items() if column == "x" and count}


@pytest.mark.parametrize("rows", [1, 2, 700])
def test_rows_are_counted_like_with_numpy(rentals: Table, rows: int) -> None:
    schema, random = rentals.schema, np.random.default_rng(rows)
    reference = histogram_reference(schema, rentals.matrix, rentals.target)
    matrix = schema.encode_frame(rentals_frame(rows, seed=rows).assign(area=random.uniform(5, 300, rows)))
    predictions = random.normal(rentals.target.mean(), 2 * rentals.target.std(), rows)
    counts = count_bins(schema, reference, matrix, predictions)
    for index, column in enumerate(schema.features):
        numbers = matrix[:, index]
        bins = [count for (name, bin_), count in counts.items() if name == column.name and bin_ not in ("outside", "missing")]
        assert bins == bin_counts(numbers, np.array(reference["columns"][column.name]["edges"])).tolist()
        if column.is_number:
            assert counts[column.name, "outside"] == outside(numbers, rentals.matrix[:, index])
        assert counts.get((column.name, "missing"), 0) == np.isnan(numbers).sum()
    bins = [count for (name, _), count in counts.items() if name is None]
    assert bins == bin_counts(predictions, np.array(reference["prediction"]["edges"])).tolist()


def outside(numbers: Vector, training: Vector) -> int:
    """Count the values below the minimum or above the maximum of the training rows."""
    return int(((numbers < np.nanmin(training)) | (numbers > np.nanmax(training))).sum())


NUMBER, MAYBE = {"type": "float"}, {"type": "float", "nullable": True}
LEVELS = {"type": "category", "nullable": True, "categories": ["a", "missing"]}


@pytest.mark.parametrize(
    ("attributes", "training", "values", "expected"),
    [
        (NUMBER, [5, 5, 5], [5, 4.9, 5.1], {"00": 2, "01": 1, "outside": 2}),
        (NUMBER, [1, 2], [1, 2, np.nextafter(1, 0), np.nextafter(2, 3), 1e308], {"00": 2, "09": 3, "outside": 3}),
        (MAYBE, [np.nan, np.nan], [3, np.nan, -1e308], {"00": 2, "missing": 1, "outside": 2}),
        (MAYBE, [1, 2, np.nan], [np.nan, np.nan], {"missing": 2}),
        ({"type": "bool"}, [0, 1], [1, 1, 0], {"false": 1, "true": 2}),
        ({"type": "category", "categories": ["only"]}, [0, 0], [0], {"only": 1}),
        (LEVELS, [0, 1, np.nan], [0, 1, np.nan, np.nan], {"a": 1, "missing": 3}),
    ],
    ids=["all the same", "ends", "no training value", "missing", "truth values", "one level", "a level called missing"],
)
def test_unusual_columns_are_counted(attributes: dict[str, Any], training: Any, values: Any, expected: dict[str, int]) -> None:
    assert count_column(attributes, training, values) == expected


def test_a_category_named_missing_shares_the_bin_of_missing_values() -> None:
    schema = Schema.from_dict({"name": "t", "columns": {"x": LEVELS, **TARGET}})
    reference = histogram_reference(schema, np.array([[0], [1], [np.nan], [np.nan]]), np.zeros(4))
    bins = Binning(schema, reference, FIRST).bins
    assert [(bin_.name, bin_.share) for bin_ in bins if bin_.column == "x"] == [("a", 0.25), ("missing", 0.75)]


def test_training_rows_have_the_shares_of_the_reference(rentals: Table) -> None:
    reference = histogram_reference(rentals.schema, rentals.matrix, rentals.target)
    counts = count_bins(rentals.schema, reference, rentals.matrix, rentals.target)
    shares = {(bin_.column, bin_.name): bin_.share for bin_ in Binning(rentals.schema, reference, FIRST).bins}
    assert {name: count / len(rentals) for name, count in counts.items() if name in shares} == pytest.approx(shares)
    assert not any(count for (_, bin_), count in counts.items() if bin_ == "outside")
