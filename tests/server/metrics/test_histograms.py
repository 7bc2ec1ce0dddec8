"""Bins of values: the same as numpy's for any column, whatever the training rows were like."""

from typing import Any

import numpy as np
import pytest

from housing.data.table import Table
from housing.schema.column import Vector
from housing.schema.histogram import bin_counts, histogram_reference
from housing.schema.table_schema import Schema
from server.metrics.histograms import Binning
from tests.support.tables import rentals_frame

FIRST = 3  # counters before those of bins
TARGET = {"y": {"type": "float", "role": "target"}}


def counted(schema: Schema, known: Any, matrix: Any, predictions: Any) -> dict[tuple[str | None, str], int]:
    """What is counted, by column and bin; of values outside the bin is called so."""
    binning = Binning(schema, known, FIRST)
    names = [(bin_.column, bin_.name) for bin_ in binning.bins] + [(name, "outside") for name in binning.numeric_columns]
    found = binning.count(np.asarray(matrix, dtype=float), np.asarray(predictions, dtype=float))[FIRST:]
    return {name: int(count) for name, count in zip(names, found, strict=True)}


def one_column(attributes: dict[str, Any], training: Any, values: Any) -> dict[str, int]:
    """What is counted of the values of a table's only column."""
    schema = Schema.from_dict({"name": "t", "columns": {"x": attributes, **TARGET}})
    known = histogram_reference(schema, np.array(training, dtype=float)[:, None], np.zeros(len(training)))
    found = counted(schema, known, np.array(values, dtype=float)[:, None], np.zeros(len(values)))
    return {bin_: count for (column, bin_), count in found.items() if column == "x" and count}


@pytest.mark.parametrize("rows", [1, 2, 700])
def test_any_rows_are_counted_as_numpy_counts_them(rentals: Table, rows: int) -> None:
    schema, random = rentals.schema, np.random.default_rng(rows)
    known = histogram_reference(schema, rentals.matrix, rentals.target)
    matrix = schema.encode_frame(rentals_frame(rows, seed=rows).assign(area=random.uniform(5, 300, rows)))
    predictions = random.normal(rentals.target.mean(), 2 * rentals.target.std(), rows)
    found = counted(schema, known, matrix, predictions)
    for place, column in enumerate(schema.features):
        numbers = matrix[:, place]
        bins = [count for (name, bin_), count in found.items() if name == column.name and bin_ not in ("outside", "missing")]
        assert bins == bin_counts(numbers, np.array(known["columns"][column.name]["edges"])).tolist()
        if column.is_number:
            assert found[column.name, "outside"] == outside(numbers, rentals.matrix[:, place])
        assert found.get((column.name, "missing"), 0) == np.isnan(numbers).sum()
    bins = [count for (name, _), count in found.items() if name is None]
    assert bins == bin_counts(predictions, np.array(known["prediction"]["edges"])).tolist()


def outside(numbers: Vector, training: Vector) -> int:
    """How many numbers are below or above all training rows."""
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
    ids=["all the same", "ends", "none known", "missing", "truth values", "one level", "a level called missing"],
)
def test_odd_columns_are_counted(attributes: dict[str, Any], training: Any, values: Any, expected: dict[str, int]) -> None:
    assert one_column(attributes, training, values) == expected


def test_a_level_that_is_called_missing_shares_the_bin_of_missing_values() -> None:
    schema = Schema.from_dict({"name": "t", "columns": {"x": LEVELS, **TARGET}})
    known = histogram_reference(schema, np.array([[0], [1], [np.nan], [np.nan]]), np.zeros(4))
    bins = Binning(schema, known, FIRST).bins
    assert [(bin_.name, bin_.share) for bin_ in bins if bin_.column == "x"] == [("a", 0.25), ("missing", 0.75)]


def test_training_rows_have_their_own_shares(rentals: Table) -> None:
    known = histogram_reference(rentals.schema, rentals.matrix, rentals.target)
    found = counted(rentals.schema, known, rentals.matrix, rentals.target)
    shares = {(bin_.column, bin_.name): bin_.share for bin_ in Binning(rentals.schema, known, FIRST).bins}
    assert {name: count / len(rentals) for name, count in found.items() if name in shares} == pytest.approx(shares)
    assert not any(count for (_, bin_), count in found.items() if bin_ == "outside")
