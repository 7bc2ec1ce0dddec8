"""The reader of `/predict` and `/invocations`: a body of rows, in JSON or CSV, or an Arrow stream."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import orjson

from housing.schema.column import Column, Matrix
from server.api.prediction import (
    PARSE_STAGE,
    PREDICT_ROUTE,
    SCORING_ROUTE,
    VALIDATE_STAGE,
    Answer,
    ParsedRequest,
    PredictionRequest,
    PredictionResult,
    StageTimer,
)
from server.api.spread import parse_query
from server.core.errors import RequestError
from server.models.current_model import Model
from server.validation import request_body
from server.validation.arrow import column_values, parse_arrow
from server.validation.request_body import ARROW, CSV, JSON, Rows
from server.validation.rows import require_row_limit

PARSERS: dict[str, Callable[[Any, Sequence[Column]], Rows]] = {
    PREDICT_ROUTE: request_body.parse_predict,
    SCORING_ROUTE: request_body.parse_invocations,
}
MEDIA_TYPES = {PREDICT_ROUTE: (JSON, ARROW), SCORING_ROUTE: (JSON, CSV, ARROW)}


class RowReader:
    """Reads requests of at most `max_rows` rows."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows

    def __call__(self, request: PredictionRequest, model: Model, timer: StageTimer) -> ParsedRequest:
        """Return the parsed request. Raises RequestError."""
        rows, matrix = self._read(request, model, timer)
        return rows, matrix, parse_query(request.query), partial(_write, request.route, model)

    def _read(self, request: PredictionRequest, model: Model, timer: StageTimer) -> tuple[Rows, Matrix]:
        """Return the rows of a body, as sent and encoded."""
        features, parse = model.bundle.schema.features, PARSERS[request.route]
        media_type = request_body.require_media_type(request.content_type, *MEDIA_TYPES[request.route])
        if media_type == CSV:
            return self._encode(request_body.parse_csv(request.body, features), model, timer)
        if media_type == ARROW:
            return self._read_arrow(request, model, timer)
        try:
            rows = parse(orjson.loads(request.body), features)  # ignores duplicate keys, which the count finds
            timer.lap(PARSE_STAGE)
            matrix = model.validator.try_encode(rows) if len(rows.rows) <= self._max_rows else None
            timer.lap(VALIDATE_STAGE)
            if matrix is not None and rows.has_unique_keys(request.body, len(model.validator.column_names)):
                return rows, matrix
        except (ValueError, RequestError):
            pass  # the strict parser below names the error
        # invalid JSON or values, a duplicate key, an escape within a string, or what only MLflow accepts
        if request.route == PREDICT_ROUTE:
            return self._encode(parse(request_body.loads_strict(request.body), features), model, timer)
        rows = parse(request_body.loads_mlflow(request.body), features)
        return self._encode(request_body.conform(rows, features), model, timer)

    def _read_arrow(self, request: PredictionRequest, model: Model, timer: StageTimer) -> tuple[Rows, Matrix]:
        """Return the rows of a stream. Only columns that are known become lists: a column of null takes no byte of the body."""
        table, validator = parse_arrow(request.body, self._max_rows), model.validator
        is_lenient = request.route == SCORING_ROUTE  # other columns are ignored, as MLflow does
        names = [name for name in table.column_names if name in validator.column_names or not is_lenient]
        validator.require_columns(names)
        columns = column_values(table, names)
        timer.lap(PARSE_STAGE)
        rows, matrix = validator.encode_columns(
            columns, all(isinstance(values, np.ndarray) for values in columns.values()), is_lenient
        )
        timer.lap(VALIDATE_STAGE)
        return rows, matrix

    def _encode(self, rows: Rows, model: Model, timer: StageTimer) -> tuple[Rows, Matrix]:
        timer.lap(PARSE_STAGE)
        require_row_limit(len(rows.rows), self._max_rows)
        matrix = model.validator.encode(rows)
        timer.lap(VALIDATE_STAGE)
        return model.validator.tabulate(rows), matrix


def _write(route: str, model: Model, request_id: str, result: PredictionResult) -> Answer:
    info = {} if route == SCORING_ROUTE else {**model.info, "request_id": request_id}
    return JSON, orjson.dumps({**result.to_dict(), **info}, option=orjson.OPT_SERIALIZE_NUMPY), ()
