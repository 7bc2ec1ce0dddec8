"""The hot routes as one function: what was asked goes in, status, headers and bytes come out.

Both the plain WSGI path and Flask's routes call it, so there is one behaviour.
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

PREDICT_ROUTE, SCORING_ROUTE = "/predict", "/invocations"


FAST_ROUTES = (PREDICT_ROUTE, SCORING_ROUTE)


PARSE_STAGE, VALIDATE_STAGE, PREDICT_STAGE, SERIALISE_STAGE = range(len(STAGES))


REQUEST_ID_HEADER = "X-Request-Id"  # MLflow's protocol has no place for it in the body


DEFAULT_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class PredictionRequest(NamedTuple):
    """A request of a hot route."""

    route: str
    content_type: str
    query: str
    key: str | None
    body: bytes


class PredictionResponse(NamedTuple):
    """What is answered."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(frozen=True)
class PredictionResult:
    """Predictions, with the ends of intervals where they were asked for."""

    names: tuple[str, ...]
    values: tuple[Any, ...]
    coverage: float | None

    def to_dict(self) -> dict[str, Any]:
        """Give them by name."""
        named = dict(zip(self.names, self.values, strict=True))
        return named if self.coverage is None else {**named, "interval": self.coverage}


class StageTimer:
    """Takes the time of a request's stages, as often as each comes."""

    def __init__(self) -> None:
        self.seconds = [0.0] * len(STAGES)
        self._lap_start = time.perf_counter()

    def lap(self, stage: int) -> None:
        """Add the time since the last lap to a stage."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._lap_start
        self._lap_start = now


class PredictionApi:
    """Answers the hot routes."""

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
        """Answer a request: let it in, read, check, predict, log, count."""
        begun = time.perf_counter()
        try:
            self._access.check(request.key, PREDICT)
            model = self._require_model()
            watch = StageTimer()
            given, matrix = self._parse_and_validate(request, model, watch)
            predicted = _predict(model, matrix, _parse_coverage(request.query))
            watch.lap(PREDICT_STAGE)
            name = self._next_id()
            headers = [*_response_headers("application/json"), (REQUEST_ID_HEADER, name)]
            answer = PredictionResponse(200, headers, _success_body(request.route, name, model, predicted))
            watch.lap(SERIALISE_STAGE)
            self._log(request.route, name, model, given, predicted, begun)
            model.metrics.add(matrix, *predicted.values)
            self._observe_stages(watch.seconds)
        except RequestError as error:
            body = problem_body(error.status, error.detail, error.problems)
            answer = PredictionResponse(
                int(error.status), _response_headers(PROBLEM_MEDIA_TYPE) + list(error.headers.items()), body
            )
        except Exception as error:  # pylint: disable=broad-exception-caught  # no request may end a worker
            answer = PredictionResponse(500, _response_headers(PROBLEM_MEDIA_TYPE), problem_body(500, log_failure(error)))
        observe_request(request.route, answer.status, time.perf_counter() - begun)
        return answer

    def reject(self, route: str, error: RequestError) -> PredictionResponse:
        """Answer a request whose body cannot be had."""
        observe_request(route, int(error.status), 0.0)
        return PredictionResponse(
            int(error.status), _response_headers(PROBLEM_MEDIA_TYPE), problem_body(error.status, error.detail)
        )

    def _require_model(self) -> Model:
        try:
            return self._current_model.get()
        except BundleError as error:
            raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, f"not ready: {error}") from error

    def _parse_and_validate(self, request: PredictionRequest, model: Model, timer: StageTimer) -> tuple[Rows, Matrix]:
        """Give the rows of a body, and the matrix that the model takes."""
        allowed = (JSON,) if request.route == PREDICT_ROUTE else (JSON, CSV)
        if request_body.require_media_type(request.content_type, *allowed) == CSV:
            return self._validate(request_body.parse_csv(request.body, model.bundle.schema.features), model, timer)
        try:
            given = self._parse(request.route, request_body.loads_fast(request.body), model)
            timer.lap(PARSE_STAGE)
            matrix = model.validator.try_encode(given) if len(given.rows) <= self._max_rows else None
            timer.lap(VALIDATE_STAGE)
            if matrix is not None and request.body.count(b":") == given.key_count(matrix.shape[1]):
                return given, matrix
        except (ValueError, RequestError):
            pass  # what is wrong is told by who reads strictly
        # not JSON, not allowed, a key that is there twice, or a text with a colon
        return self._validate(self._parse(request.route, request_body.loads_strict(request.body), model), model, timer)

    def _parse(self, route: str, body: Any, model: Model) -> Rows:
        if route == PREDICT_ROUTE:
            return request_body.parse_predict(body)
        return request_body.parse_invocations(body, model.bundle.schema.features)

    def _validate(self, payload: Rows, model: Model, timer: StageTimer) -> tuple[Rows, Matrix]:
        timer.lap(PARSE_STAGE)
        if len(payload.rows) > self._max_rows:
            raise RequestError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has {len(payload.rows)} rows; allowed: {self._max_rows}"
            )
        matrix = model.validator.encode(payload)
        timer.lap(VALIDATE_STAGE)
        return payload, matrix

    def _log(self, route: str, request_id: str, model: Model, payload: Rows, result: PredictionResult, started_at: float) -> None:
        names = model.validator.column_names
        self._write_log(
            {
                "id": request_id,
                "time": time.time(),
                "route": route,
                **model.info,
                "run_id": model.bundle.card["run_id"],
                "latency_ms": round(1000 * (time.perf_counter() - started_at), 3),
                "columns": payload.columns or names,
                "rows": payload.rows if payload.columns else [[row[column] for column in names] for row in payload.rows],
                **result.to_dict(),
            }
        )


def _predict(model: Model, matrix: Matrix, coverage: float | None) -> PredictionResult:
    if coverage is None:
        return PredictionResult(("predictions",), (model.bundle.predict(matrix),), None)
    try:
        values = model.bundle.predict_interval(matrix, coverage)
    except (BundleError, ConfigError) as error:  # no intervals, or none that wide
        raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
    return PredictionResult(("predictions", "lower", "upper"), values, coverage)


def _parse_coverage(query: str) -> float | None:
    """Read `interval=0.9`. Raises RequestError for another query."""
    if not query:
        return None
    asked = parse_qsl(query, keep_blank_values=True)
    if [name for name, _ in asked] != ["interval"]:
        raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, "the query is not known; allowed: interval=0.9, or none")
    try:
        coverage = float(asked[0][1])
    except ValueError:
        coverage = np.nan
    if not 0.0 < coverage < 1.0:
        raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, "interval is not a share; allowed: above 0, below 1")
    return coverage


def _success_body(route: str, request_id: str, model: Model, result: PredictionResult) -> bytes:
    told = {} if route == SCORING_ROUTE else {**model.info, "request_id": request_id}
    return orjson.dumps({**result.to_dict(), **told}, option=orjson.OPT_SERIALIZE_NUMPY)


def _response_headers(content_type: str) -> list[tuple[str, str]]:
    return [("Content-Type", content_type), *DEFAULT_HEADERS.items()]
