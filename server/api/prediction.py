"""The prediction API: one function that turns a request of `/predict` or `/invocations` into a response.

Both the fast WSGI path and the Flask routes call it, so both behave the same.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import numpy as np
import orjson

from housing.core.errors import BundleError, ConfigError
from housing.schema.column import Matrix
from server.api.auth import PREDICT, Access
from server.core.errors import PROBLEM_MEDIA_TYPE, RequestError, log_failure, problem_body
from server.metrics.request_metrics import STAGES, observe_request
from server.models.current_model import CurrentModel, Model
from server.validation import request_body
from server.validation.request_body import CSV, JSON, Rows

FAST_ROUTES = PREDICT_ROUTE, SCORING_ROUTE = ("/predict", "/invocations")
PARSE_STAGE, VALIDATE_STAGE, PREDICT_STAGE, SERIALISE_STAGE = range(len(STAGES))
REQUEST_ID_HEADER = "X-Request-Id"  # a header, since MLflow's protocol has no field for it
DEFAULT_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class PredictionRequest(NamedTuple):
    """A request of a fast route."""

    route: str
    content_type: str
    query: str
    key: str | None
    body: bytes


class PredictionResponse(NamedTuple):
    """The response to a request of a fast route."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(frozen=True)
class PredictionResult:
    """Predictions, with interval bounds if the request has a coverage."""

    names: tuple[str, ...]
    values: tuple[Any, ...]
    coverage: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return predictions and bounds by name."""
        named = dict(zip(self.names, self.values, strict=True))
        return named if self.coverage is None else {**named, "interval": self.coverage}


class StageTimer:
    """Measures the seconds that a request spends in each stage."""

    def __init__(self) -> None:
        self.seconds = [0.0] * len(STAGES)
        self._lap_start = time.perf_counter()

    def lap(self, stage: int) -> None:
        """Add the time since the last lap to a stage."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._lap_start
        self._lap_start = now


class PredictionApi:
    """Answers the fast routes."""

    def __init__(
        self,
        current_model: CurrentModel,
        access: Access,
        max_rows: int,
        next_id: Callable[[], str],
        write_log: Callable[[dict[str, Any]], None],
        observe_stages: Callable[[Sequence[float]], None],
    ) -> None:
        self._current_model, self._access, self._max_rows = current_model, access, max_rows
        self._next_id, self._write_log, self._observe_stages = next_id, write_log, observe_stages

    def handle(self, request: PredictionRequest) -> PredictionResponse:
        """Answer a request: authorize, parse, validate, predict, log and count."""
        start = time.perf_counter()
        try:
            self._access.check(request.key, PREDICT)
            model = require_model(self._current_model)
            timer = StageTimer()
            payload, matrix = self._parse_and_validate(request, model, timer)
            result = _predict(model, matrix, _parse_coverage(request.query))
            timer.lap(PREDICT_STAGE)
            request_id = self._next_id()
            headers = [*_response_headers("application/json"), (REQUEST_ID_HEADER, request_id)]
            response = PredictionResponse(200, headers, _success_body(request.route, request_id, model, result))
            timer.lap(SERIALISE_STAGE)
            self._log(request.route, request_id, model, payload, result, start)
            model.metrics.add(matrix, *result.values)
            self._observe_stages(timer.seconds)
        except RequestError as error:
            response = _error_response(error)
        except Exception as error:  # pylint: disable=broad-exception-caught  # no request may end a worker
            response = PredictionResponse(500, _response_headers(PROBLEM_MEDIA_TYPE), problem_body(500, log_failure(error)))
        observe_request(request.route, response.status, time.perf_counter() - start)
        return response

    def reject(self, route: str, error: RequestError) -> PredictionResponse:
        """Answer a request whose body could not be read."""
        observe_request(route, int(error.status), 0.0)
        return _error_response(error)

    def _parse_and_validate(self, request: PredictionRequest, model: Model, timer: StageTimer) -> tuple[Rows, Matrix]:
        """Return the rows of a body, as sent and encoded."""
        allowed = (JSON,) if request.route == PREDICT_ROUTE else (JSON, CSV)
        if request_body.require_media_type(request.content_type, *allowed) == CSV:
            return self._validate(request_body.parse_csv(request.body, model.bundle.schema.features), model, timer)
        try:
            payload = _parse(request.route, orjson.loads(request.body), model)  # ignores duplicate keys, which the count finds
            timer.lap(PARSE_STAGE)
            matrix = model.validator.try_encode(payload) if len(payload.rows) <= self._max_rows else None
            timer.lap(VALIDATE_STAGE)
            if matrix is not None and request.body.count(b":") == payload.key_count(matrix.shape[1]):
                return payload, matrix
        except (ValueError, RequestError):
            pass  # the strict parser below names the error
        # invalid JSON or values, a duplicate key, a colon within a string, or what only MLflow accepts
        if request.route == PREDICT_ROUTE:
            return self._validate(request_body.parse_predict(request_body.loads_strict(request.body)), model, timer)
        features = model.bundle.schema.features
        payload = request_body.parse_invocations(request_body.loads_mlflow(request.body), features)
        return self._validate(request_body.conform(payload, features), model, timer)

    def _validate(self, payload: Rows, model: Model, timer: StageTimer) -> tuple[Rows, Matrix]:
        timer.lap(PARSE_STAGE)
        if len(payload.rows) > self._max_rows:
            detail = f"The request must have at most {self._max_rows} rows (got {len(payload.rows)})."
            raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
        matrix = model.validator.encode(payload)
        timer.lap(VALIDATE_STAGE)
        return model.validator.tabulate(payload), matrix

    def _log(self, route: str, request_id: str, model: Model, payload: Rows, result: PredictionResult, start: float) -> None:
        names = model.validator.column_names
        self._write_log(
            {
                "id": request_id,
                "time": time.time(),
                "route": route,
                **model.info,
                "run_id": model.bundle.card["run_id"],
                "latency_ms": round(1000 * (time.perf_counter() - start), 3),
                "columns": payload.columns or names,
                "rows": payload.rows if payload.columns else [[row[column] for column in names] for row in payload.rows],
                **result.to_dict(),
            }
        )


def require_model(current_model: CurrentModel) -> Model:
    """Return the current model. Raises RequestError (503), with the reason, if there is none."""
    try:
        return current_model.get()
    except BundleError as error:
        raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error


def _parse(route: str, body: Any, model: Model) -> Rows:
    if route == PREDICT_ROUTE:
        return request_body.parse_predict(body)
    return request_body.parse_invocations(body, model.bundle.schema.features)


def _predict(model: Model, matrix: Matrix, coverage: float | None) -> PredictionResult:
    if coverage is None:
        return PredictionResult(("predictions",), (model.bundle.predict(matrix),), None)
    try:
        values = model.bundle.predict_interval(matrix, coverage)
    except (BundleError, ConfigError) as error:  # no intervals, or none with this coverage
        raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
    return PredictionResult(("predictions", "lower", "upper"), values, coverage)


def _parse_coverage(query: str) -> float | None:
    """Parse `interval=0.9`. Raises RequestError for any other query."""
    if not query:
        return None
    parameters = parse_qsl(query, keep_blank_values=True)
    if [name for name, _ in parameters] != ["interval"]:
        raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, "Unknown query. The only parameter is interval, as in ?interval=0.9.")
    try:
        coverage = float(parameters[0][1])
    except ValueError:
        coverage = np.nan
    if not 0.0 < coverage < 1.0:
        detail = f"interval must be a number between 0 and 1 (got {parameters[0][1]!r})."
        raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
    return coverage


def _success_body(route: str, request_id: str, model: Model, result: PredictionResult) -> bytes:
    info = {} if route == SCORING_ROUTE else {**model.info, "request_id": request_id}
    return orjson.dumps({**result.to_dict(), **info}, option=orjson.OPT_SERIALIZE_NUMPY)


def _error_response(error: RequestError) -> PredictionResponse:
    headers = _response_headers(PROBLEM_MEDIA_TYPE) + list(error.headers.items())
    return PredictionResponse(int(error.status), headers, problem_body(error.status, error.detail, error.problems))


def _response_headers(content_type: str) -> list[tuple[str, str]]:
    return [("Content-Type", content_type), *DEFAULT_HEADERS.items()]
