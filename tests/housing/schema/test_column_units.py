"""Unit, scale and title of a column, with which stored values are displayed."""

from typing import Any

import pytest

from housing.core.errors import ConfigError
from housing.schema.column import Column
from housing.schema.table_schema import Schema


def test_the_label_of_a_scaled_column_names_the_unit_of_its_stored_values() -> None:
    assert Column("price", "float", unit="USD", scale=100_000).unit_label == "100,000 USD"
    assert Column("price", "float", unit="USD", scale=0.5).unit_label == "0.5 USD"
    assert Column("price", "float", unit="USD").unit_label == "USD"
    assert Column("price", "float").unit_label == ""


def test_the_declaration_keeps_the_scale_which_is_not_part_of_the_interface() -> None:
    columns: dict[str, Any] = {"a": {"type": "float"}, "y": {"type": "float", "role": "target", "unit": "USD", "scale": 1000}}
    schema = Schema.from_dict({"name": "t", "columns": columns})
    assert Schema.from_dict(schema.to_dict()) == schema
    assert schema.to_dict()["columns"]["y"]["scale"] == 1000
    unscaled = Schema.from_dict({"name": "t", "columns": {**columns, "y": {"type": "float", "role": "target"}}})
    assert unscaled.interface_hash() == schema.interface_hash()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"unit": "USD", "scale": 0}, "scale .*got 0"),
        ({"unit": "USD", "scale": "1000"}, "scale .*got '1000'"),
        ({"scale": 1000}, "scale needs a unit"),
        ({"type": "bool", "unit": "USD", "scale": 1000}, "scale needs a unit and the type float or int"),
    ],
)
def test_an_invalid_scale_is_an_error(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"Column price: {message}"):
        Column(**{"name": "price", "type": "float", **attributes})
