"""Labels: the true values of predicted rows, and the lines of the feedback files that hold them."""

from dataclasses import dataclass
from typing import Any

import orjson
from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate

from housing.server_files.request_id import REQUEST_ID_PATTERN

MAX_ROW = 2**31  # the database holds no larger integers than 64 bits


@dataclass(frozen=True)
class Label:
    """The true value of a row of a request, and when it arrived (unix seconds)."""

    request_id: str
    row: int
    value: float
    time: float


# Schemas reject NaN, infinity and other types.
class _ItemSchema(Schema):
    request_id = fields.String(required=True, validate=lambda text: REQUEST_ID_PATTERN.fullmatch(text) is not None)
    row = fields.Integer(required=True, strict=True, validate=validate.Range(0, MAX_ROW))
    value = fields.Float(required=True)


class _LineSchema(Schema):
    time = fields.Float(required=True)
    feedback = fields.List(fields.Nested(_ItemSchema, unknown=EXCLUDE), required=True)


_LINE_SCHEMA = _LineSchema()


def parse_labels(line: bytes, latest: float) -> list[Label]:
    """Return the labels of a line of a feedback file, with arrival times of at most `latest`. Raises ValueError."""
    try:
        message: dict[str, Any] = _LINE_SCHEMA.load(orjson.loads(line), unknown=EXCLUDE)
    except ValidationError as error:
        raise ValueError(str(error)) from error
    return [Label(**item, time=min(message["time"], latest)) for item in message["feedback"]]
