"""The schema: one declaration for the checks of frames and requests, the codec and the signature."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from marshmallow import ValidationError

from housing.core.errors import ConfigError, TableError
from housing.data.table import Table
from housing.schema.histogram import histogram_reference
from housing.schema.table_schema import Schema
from server.validation.marshmallow_schema import make_row_schema

VALID_ROW = {"area": 50.5, "rooms": 2, "furnished": True, "quarter": "hills", "built": None}
BEYOND_FLOAT = 10**400

VALID_VALUES = [
    ("area", 5),
    ("area", 500.0),
    ("rooms", 3.0),
    ("furnished", False),
    ("quarter", "old town"),
    ("built", None),
    ("built", 1999),
]
INVALID_VALUES = [
    ("area", None, "Missing"),
    ("area", 4.999, "at least 5 (got 4.999)"),
    ("area", 500.1, "at most 500 (got 500.1)"),
    ("area", math.inf, "Not a finite number"),
    ("area", BEYOND_FLOAT, "Not a finite number"),
    ("area", "50", "Not a number: '50'"),
    ("area", True, "Not a number: True"),
    ("rooms", 2.5, "Not a whole number: 2.5"),
    ("furnished", 1, "Not true or false: 1"),
    ("furnished", "true", "Not true or false: 'true'"),
    ("furnished", None, "Missing"),
    ("quarter", "slums", "one of old town, harbour, hills (got 'slums')"),
    ("quarter", 1, "one of old town, harbour, hills (got 1)"),
    ("quarter", None, "Missing"),
    ("built", 1700, "at least 1800 (got 1700)"),
]


@pytest.mark.parametrize(("column", "value"), VALID_VALUES)
def test_frame_check_codec_and_request_check_accept_the_same_values(rentals: Table, column: str, value: Any) -> None:
    row = {**VALID_ROW, column: value}
    schema = rentals.schema
    from_frame = schema.encode_frame(pd.DataFrame([row], dtype=object))
    assert make_row_schema(schema).validate([row], many=True) == {}
    from_request = schema.encode_records([row])
    np.testing.assert_array_equal(from_frame, from_request)
    decoded = schema.decode(from_frame)[0]
    assert decoded == row
    assert {name: type(item) for name, item in decoded.items() if item is not None} == {
        name: {"area": float, "rooms": int, "furnished": bool, "quarter": str, "built": int}[name]
        for name, item in row.items()
        if item is not None
    }


@pytest.mark.parametrize(("column", "value", "reason"), INVALID_VALUES)
def test_frame_check_and_request_check_reject_the_same_values_with_the_same_message(
    rentals: Table, column: str, value: Any, reason: str
) -> None:
    rows = [VALID_ROW, {**VALID_ROW, column: value}]
    with pytest.raises(TableError, match=f"row 1, {column}: .*") as frame_error:
        rentals.schema.encode_frame(pd.DataFrame(rows, dtype=object))
    with pytest.raises(ValidationError) as request_error:
        make_row_schema(rentals.schema).load(rows, many=True)
    messages: Any = request_error.value.messages
    assert reason in messages[1][column][0]
    assert [(problem.row, problem.field, problem.reason) for problem in frame_error.value.violations] == [
        (1, column, messages[1][column][0])
    ]


def test_numeric_frames_are_checked_like_objects(rentals: Table) -> None:
    frame = pd.DataFrame([VALID_ROW, VALID_ROW, VALID_ROW]).astype({"built": "float64"})
    frame["area"] = [50.0, 4.0, np.nan]
    with pytest.raises(TableError) as error:
        rentals.schema.encode_frame(frame)
    assert [str(problem) for problem in error.value.violations] == [
        "row 1, area: Must be at least 5 (got 4.0).",
        "row 2, area: Missing required value.",
    ]


def test_a_missing_or_undeclared_column_is_an_error_with_its_name(rentals: Table) -> None:
    frame = pd.DataFrame([VALID_ROW]).drop(columns="rooms").assign(bogus=1)
    with pytest.raises(TableError, match="rooms: Missing column"):
        rentals.schema.encode_frame(frame)
    with pytest.raises(TableError, match="bogus: Undeclared column. .* bogus: {role: ignore}"):
        rentals.schema.require_table_columns([*frame.columns, "rooms", "rent"])


def test_the_signature_lists_the_columns_in_order_with_numbers_as_doubles(rentals: Table) -> None:
    assert rentals.schema.signature() == [
        ("area", "double", True),
        ("rooms", "double", True),
        ("furnished", "boolean", True),
        ("quarter", "string", True),
        ("built", "double", False),
    ]


def test_a_schema_equals_the_one_restored_from_its_declaration(rentals: Table) -> None:
    assert Schema.from_dict(rentals.schema.to_dict()) == rentals.schema


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"type": "decimal"}, "x: type must be one of float, int, bool, category, ordinal, date, text .got 'decimal'"),
        ({"type": "float", "maximum": 3}, "x: unknown attribute maximum. .*max"),
        ({}, "x: type is missing"),
        (None, "x: needs attributes, such as"),
        ({"type": "float", "nullable": "no"}, "x: nullable must be true or false .got 'no'"),
        ({"type": "float", "min": "a"}, "x: min and max must be finite numbers"),
        ({"type": "float", "min": -math.inf}, "x: min and max must be finite numbers"),
        ({"type": "category"}, "x: a column of type category needs categories"),
        ({"type": "category", "categories": 5}, "x: categories must be a list of strings, or auto .got 5"),
        ({"type": "category", "categories": [1, 2]}, "x: categories must be strings"),
        ({"type": "category", "categories": ["a", "a"]}, "x: categories must be unique .got a"),
        ({"type": "float", "min": 2, "max": 1}, "x: min must be below max .got 2 and 1"),
        ({"type": "bool", "min": 0}, "x: min and max need the type float or int .got bool"),
        ({"type": "float", "role": "label"}, "x: role must be one of .*target .got 'label'"),
        ({"type": "float", "role": "target"}, "exactly one column with the role target .got 2"),
        ({"type": "bool", "role": "latitude"}, "x: the role latitude needs the type float or int .got bool"),
    ],
)
def test_an_invalid_declaration_is_an_error_with_the_column_and_the_allowed_values(
    attributes: dict[str, Any], message: str
) -> None:
    declared = {"name": "t", "columns": {"x": attributes, "y": {"type": "float", "role": "target"}, "z": {"type": "int"}}}
    with pytest.raises(ConfigError, match=message):
        Schema.from_dict(declared)


def test_key_and_target_are_not_features() -> None:
    columns = {"id": {"type": "int", "role": "key"}, "x": {"type": "float"}, "y": {"type": "float", "role": "target"}}
    schema = Schema.from_dict({"name": "t", "columns": columns})
    assert [column.name for column in schema.features] == ["x"]
    assert [column.name for column in schema.key] == ["id"]


def test_shares_of_the_reference_histogram_add_up_with_missing_values(rentals: Table) -> None:
    bins = histogram_reference(rentals.schema, rentals.matrix, rentals.target)
    for name, column in bins["columns"].items():
        assert sum(column["shares"]) + column["missing"] == pytest.approx(1.0), name
        assert len(column["shares"]) == len(column["edges"]) + 1, name
    assert bins["columns"]["built"]["missing"] == pytest.approx(np.isnan(rentals.matrix[:, 4]).mean())
    assert bins["columns"]["quarter"]["shares"] == pytest.approx([(rentals.matrix[:, 3] == level).mean() for level in range(3)])
    assert bins["columns"]["area"]["shares"] == pytest.approx([0.1] * 10, abs=0.01)
    assert len(bins["prediction"]["edges"]) == 9


@pytest.mark.parametrize("name", ["a.b", "load", "Meta", "fields", "_schema", "with space", "größe"])
def test_a_column_may_have_any_name(name: str) -> None:
    columns = {name: {"type": "float", "max": 9}, "y": {"type": "float", "role": "target"}}
    schema = Schema.from_dict({"name": "t", "columns": columns})
    requests: Any = make_row_schema(schema)
    assert requests.validate([{name: 1.0}], many=True) == {}
    assert requests.validate([{name: 10}], many=True) == {0: {name: ["Must be at most 9 (got 10)."]}}
    assert requests.validate([{}], many=True) == {0: {name: ["Missing required value."]}}
    np.testing.assert_array_equal(schema.encode_records([{name: 1.0}]), [[1.0]])


def test_only_changes_that_affect_clients_change_the_interface(rentals: Table) -> None:
    declared = rentals.schema.to_dict()
    declared["columns"]["area"] = {**declared["columns"]["area"], "description": "another description", "max": 900}
    assert Schema.from_dict(declared).interface() == rentals.schema.interface()
    declared["columns"]["area"] = {**declared["columns"]["area"], "nullable": True}
    assert Schema.from_dict(declared).interface() != rentals.schema.interface()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x", "a b", 5])
def test_a_table_name_that_is_no_valid_file_name_is_an_error(name: Any) -> None:
    with pytest.raises(ConfigError, match="name must consist of"):
        Schema.from_dict({"name": name, "columns": {"x": {"type": "int"}, "y": {"type": "float", "role": "target"}}})


@pytest.mark.parametrize(
    ("column", "change", "reason"),
    [
        ("rooms", {"type": "float"}, "column rooms changed its type from int to float"),
        ("quarter", {"categories": ["harbour", "hills"]}, "column quarter lost the category 'old town'"),
        ("built", {"nullable": False}, "column built is no longer nullable"),
        ("quarter", {"categories": ["old town", "harbour", "hills", "sea"]}, None),
        ("rooms", {"nullable": True, "max": 1000}, None),
    ],
)
def test_breaking_changes_are_described(rentals: Table, column: str, change: dict[str, Any], reason: str | None) -> None:
    declared = rentals.schema.to_dict()
    declared["columns"][column] |= change
    assert Schema.from_dict(declared).breaking_changes(rentals.schema) == ([] if reason is None else [reason])


def test_added_and_removed_columns_are_breaking_changes(rentals: Table) -> None:
    declared = rentals.schema.to_dict()
    declared["columns"]["floor"] = declared["columns"].pop("rooms")
    assert Schema.from_dict(declared).breaking_changes(rentals.schema) == ["column floor was added", "column rooms was removed"]


def test_a_table_without_columns_is_an_error() -> None:
    with pytest.raises(ConfigError, match="Table t has no columns"):
        Schema.from_dict({"name": "t"})
