"""Dates and numbers that are written as text, and the parts of dates that models receive."""

import math
from typing import Any

import numpy as np
import pytest

from housing.core.errors import ConfigError
from housing.features.date_parts import date_part_names, date_parts
from housing.schema.column import Column
from housing.schema.written_numbers import parse_written_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("80,000", 80_000),
        ("$1,200", 1200),
        ("1,20,000 kms", 120_000),
        ("12,34,567", 1_234_567),
        ("$1,200.50", 1200.5),
        ("12 %", 12),
        ("45,000 kms", 45_000),
        ("-3", -3),
        ("$ -1,000", -1000),
        ("1e3", 1000),
        (" 7 ", 7),
        ("€5", 5),
        ("12k", None),
        ("1.5 million", None),
        ("3 to 5", None),
        ("1,20", None),
        ("1.2.3", None),
        ("80.000,50", None),
        ("", None),
        ("km", None),
        ("\u0665", None),
    ],
)
def test_a_text_has_exactly_one_number_or_none(text: str, number: float | None) -> None:
    assert parse_written_number(text) == number


@pytest.mark.parametrize(
    ("text", "date_format"),
    [
        ("2020-02-29", ""),
        ("31.12.1899 23:59", "%d.%m.%Y %H:%M"),
        ("20240101T101112", "%Y%m%dT%H%M%S"),
        ("Jan 5, 2021", "%b %d, %Y"),
    ],
)
def test_a_date_is_decoded_as_it_was_written_or_to_the_same_code(text: str, date_format: str) -> None:
    column = Column("day", "date", format=date_format)
    assert column.validate(text) is None
    assert column.encode(column.decode(column.encode(text))) == column.encode(text)


def test_an_offset_is_an_instant() -> None:
    column = Column("at", "date", format="%Y-%m-%d %H:%M%z")
    assert column.encode("2020-01-01 01:00+0100") == column.encode("2020-01-01 00:00+0000")


@pytest.mark.parametrize("value", ["2021-02-29", "2021-13-01", "", "yesterday", 5, True, "2021-01-01 10:00"])
def test_what_is_no_date_is_refused(value: Any) -> None:
    assert str(Column("day", "date").validate(value)).startswith("Must be a date such as 1970-01-01, in the format %Y-%m-%d")


def test_parts_of_a_date() -> None:
    column = Column("at", "date", format="%Y-%m-%d %H:%M")
    parts = date_parts(np.array([column.encode("2024-02-29 18:30"), math.nan, column.encode("1969-12-31 00:00")]), column.format)
    named = dict(zip(date_part_names("at", column.format), parts.T, strict=True))
    expected: dict[str, list[float]] = {
        "at_year": [2024, 1969],
        "at_month": [2, 12],
        "at_weekday": [3, 2],
        "at_days": [19782, -1],
        "at_hour": [18.5, 0],
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(named[name], [values[0], np.nan, values[1]], err_msg=name)
    assert named["at_hour_sin"][0] == math.sin(2 * math.pi * 18 / 24)
    assert named["at_year_cos"][0] == math.cos(2 * math.pi * 59 / 366)
    assert "at_hour" not in date_part_names("at", "%Y-%m-%d")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"type": "date", "format": "%H:%M"}, "format must have year and month"),
        ({"type": "date", "format": 5}, "format must have year and month"),
        ({"type": "float", "format": "%Y"}, "format needs the type date"),
        ({"type": "float", "parse": "money"}, "parse must be number"),
        ({"type": "category", "categories": ("a",), "parse": "number"}, "parse: number needs the type float or int"),
        ({"type": "ordinal"}, "a column of type ordinal needs categories"),
        ({"type": "ordinal", "categories": ("a", "b"), "unseen": "other"}, "unseen: other needs the type category"),
        ({"type": "date", "role": "weight"}, "the role weight needs the type float or int"),
    ],
)
def test_a_contradiction_is_refused(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Column(name="x", **attributes)


def test_an_ordinal_is_a_number_in_the_declared_order() -> None:
    column = Column("grade", "ordinal", categories=("poor", "fair", "good"))
    assert [column.encode(value) for value in ("good", "poor")] == [2.0, 0.0]
    assert column.validate("bad") == "Must be one of poor, fair, good (got 'bad')."
