"""The bundle's schema as Marshmallow: it decides nothing itself, `Column.reason` does."""

from collections.abc import Mapping
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields

from housing.schema.column import Column
from housing.schema.table_schema import Schema as TableSchema


class ColumnField(fields.Field[Any]):
    """A field that takes what a column allows. A nullable column's missing value is null; its key must be there."""

    def __init__(self, column: Column) -> None:
        messages: Any = {"required": "is missing", "null": "is missing"}
        super().__init__(required=True, allow_none=column.nullable, error_messages=messages, data_key=column.name)
        self.column = column

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> Any:
        reason = self.column.validate(value)
        if reason:
            raise ValidationError(reason)
        return value


class RowSchema(Schema):
    """One row; unknown keys are refused."""

    error_messages = {"unknown": "is not a column of this model", "type": "is not an object"}

    class Meta:
        """Marshmallow reads its options here."""

        unknown = RAISE


def make_row_schema(table: TableSchema) -> Schema:
    """Make the schema of one row of a table. What it loads is not for use: a name may mean something to Marshmallow."""
    return RowSchema.from_dict({f"column_{place}": ColumnField(column) for place, column in enumerate(table.features)})()
