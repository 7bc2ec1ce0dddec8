"""Roles of columns: which are features, which a request may leave out, and rows without a target."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from housing.core.errors import ConfigError, HousingError, TableError
from housing.data.read_options import PLAIN
from housing.data.settings import parse_schema
from housing.data.table import Table, load
from housing.ingestion.feedback_rows import parse_joined_rows
from housing.schema.table_schema import Schema
from tests.support.tables import config, orders_frame

DECLARED: dict[str, Any] = {"x": {"type": "float"}, "y": {"type": "float", "role": "target"}}


def orders(tmp_path: Path, **changes: Any) -> Table:
    """Read the orders, with some columns changed."""
    path = tmp_path / "orders.csv"
    orders_frame().assign(**changes).to_csv(path, index=False)
    return load(config("train", "data=orders", f"data.path={path}").data)


def test_only_features_are_in_the_matrix(tmp_path: Path) -> None:
    table = orders(tmp_path)
    assert [column.name for column in table.schema.features] == [
        "size",
        "colour",
        "age",
        "town",
        "brand",
        "shelf",
        "placed",
        "grade",
        "worn",
        "remark",
    ]
    assert [column.name for column in table.schema.unused] == ["order", "customer", "week", "copies", "note"]
    assert table.matrix.shape == (len(table), 10 + 8)  # a text has its explained share and its components


def test_rows_without_a_target_are_dropped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frame = orders_frame()
    with caplog.at_level(logging.WARNING):
        table = orders(tmp_path)
    labelled = frame[frame["price"].notna()]
    np.testing.assert_array_equal(table.target, labelled["price"])
    np.testing.assert_array_equal(table.matrix[:, 0], labelled["size"])
    missing = len(frame) - len(labelled)
    assert missing > 10
    assert f"dropped {missing} of 600 rows, which have no price" in caplog.text
    with pytest.raises(TableError, match="Table orders has no rows with a price"):
        orders(tmp_path, price=np.nan)


def test_a_wrong_value_behind_a_dropped_row_is_reported_with_its_row(tmp_path: Path) -> None:
    frame = orders_frame()
    row = int(np.flatnonzero(frame["price"].notna())[-1])
    assert row > frame["price"].notna().sum()
    price = frame["price"].mask(frame.index == row, -1.0)
    with pytest.raises(TableError, match=f"row {row}, price: Must be at least 0"):
        orders(tmp_path, price=price)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("order", np.nan, "row 7, order: Missing required value"),
        ("customer", np.nan, "row 7, customer: Missing required value"),
        ("week", 1.5, "row 7, week: Not a whole number: 1.5"),
        ("week", np.nan, "week: 1 of [0-9]+ values are missing, the first in row 7. The role time needs all"),
        ("copies", 0, "row 7, copies: A weight must be above 0 .got 0"),
    ],
)
def test_a_value_that_no_model_receives_is_checked_too(tmp_path: Path, column: str, value: Any, reason: str) -> None:
    changed = orders_frame()[column].astype(object).mask(np.arange(600) == 7, value)
    with pytest.raises(TableError, match=reason):
        orders(tmp_path, **{column: changed})


def test_an_ignored_column_may_hold_anything_or_be_absent(tmp_path: Path) -> None:
    frame, path = orders_frame(), tmp_path / "orders.csv"
    table = orders(tmp_path)
    frame.drop(columns="note").to_csv(path, index=False)
    without = load(config("train", "data=orders", f"data.path={path}").data)
    assert without.row_keys() == table.row_keys()


def test_undeclared_columns_are_listed_with_the_line_that_ignores_them(tmp_path: Path) -> None:
    with pytest.raises(TableError) as error:
        orders(tmp_path, shop="a", till=1)
    shown = str(error.value)
    assert "shop: Undeclared column. To leave it out, add to columns: shop: {role: ignore}" in shown
    assert "till: {role: ignore}" in shown


def test_all_faults_of_a_declaration_are_named_at_once() -> None:
    columns: dict[Any, Any] = {
        **DECLARED,
        "a": {"type": "decimal"},
        "b": {"type": "bool", "min": 0, "role": "weight"},
        "c": {"type": "category"},
        7: {"type": "int"},
        "d": {"typ": "int", "rol": "key"},
    }
    with pytest.raises(ConfigError) as error:
        Schema.from_dict({"name": "t", "columns": columns})
    for fault in (
        "Column a: type must be one of",
        "Column b: the role weight needs the type float or int",
        "Column b: min and max need the type float or int",
        "Column c: a column of type category needs categories",
        "YAML reads the name of a column as 7",
        "Column d: unknown attribute rol, typ.",
    ):
        assert fault in str(error.value), fault
    roles = {name: {"type": "int", "role": role} for name in "ab" for role in ("time",)}
    with pytest.raises(ConfigError, match="exactly one column with the role target(?s:.*)at most one column with the role time"):
        Schema.from_dict({"name": "t", "columns": {**roles, "x": {"type": "int"}}})


def test_callers_may_keep_sending_a_column_that_is_now_ignored_and_need_not_send_a_new_nullable_one() -> None:
    before = Schema.from_dict({"name": "t", "columns": {**DECLARED, "z": {"type": "int"}}})
    after = Schema.from_dict(
        {"name": "t", "columns": {**DECLARED, "z": {"role": "ignore"}, "new": {"type": "int", "nullable": True}}}
    )
    assert after.breaking_changes(before) == []
    assert Schema.from_dict({"name": "t", "columns": DECLARED}).breaking_changes(before) == ["column z was removed"]


def joined(**columns: Any) -> dict[str, Any]:
    """Return a row of the joiner."""
    return {"id": "a", "row": 0, "columns": columns, "value": 5.0, "time": 1.0}


def test_feedback_becomes_a_row_of_the_table_if_its_request_had_the_key(tmp_path: Path) -> None:
    schema = parse_schema(config("train", "data=orders").data)
    request = {
        "size": 2.5,
        "town": "town 7",
        "shelf": "S01",
        "grade": "fair",
        "order": "17",
        "customer": "ann",
        "week": 3,
        "copies": 1,
    }
    rows = parse_joined_rows([joined(**request)], schema, PLAIN, tmp_path)
    assert not rows.bad_rows, json.dumps([str(row) for row in rows.bad_rows])
    no_remark = [np.nan] * 9
    np.testing.assert_array_equal(rows.table.matrix, [[2.5, np.nan, np.nan, 0, np.nan, 0, np.nan, 1, np.nan, *no_remark]])
    with pytest.raises(HousingError, match="Missing or unknown: copies, customer, grade, order, shelf, town, week"):
        parse_joined_rows([joined(size=2.5)], schema, PLAIN, tmp_path)
