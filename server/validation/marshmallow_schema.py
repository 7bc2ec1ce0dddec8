"""The Marshmallow schema of one row, whose fields delegate every decision to the bundle's columns."""

from collections.abc import Mapping
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields

from housing.schema.column import MISSING, Column
from housing.schema.table_schema import Schema as TableSchema

UNKNOWN = "Not a column of this model."


class ColumnField(fields.Field[Any]):
    """A field that accepts the values of a column. A missing value of a nullable column is null or left out."""

    def __init__(self, column: Column) -> None:
        messages: Any = {"required": MISSING, "null": MISSING}
        super().__init__(required=not column.nullable, allow_none=column.nullable, error_messages=messages, data_key=column.name)
        self.column = column

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> Any:
        reason = self.column.validate(value)
        if reason:
            raise ValidationError(reason)
        return value


class RowSchema(Schema):
    """One row; unknown keys are rejected."""

    error_messages = {"unknown": UNKNOWN, "type": "Must be a JSON object."}

    class Meta:
        """Marshmallow's options."""

        unknown = RAISE


def make_row_schema(table: TableSchema) -> Schema:
    """Return the schema of one row of a table. Use it only to validate: its attributes have generic names."""
    columns: list[fields.Field[Any]] = [ColumnField(column) for column in table.features]
    columns += [fields.Raw(data_key=column.name, allow_none=True) for column in table.unused]
    return RowSchema.from_dict({f"column_{index}": column for index, column in enumerate(columns)})()
