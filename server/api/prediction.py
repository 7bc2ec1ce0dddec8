"""The prediction API: authorizes, answers, records and counts the requests of each fast route in the same way.

A reader of each route turns a request into a matrix, and knows how to write the answer.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from housing.core.errors import BundleError, ConfigError
from housing.schema.column import Matrix
from server.api.auth import PREDICT, Access, ApiKey
from server.api.spread import INTERVAL, LOWER, POINT, QUANTILES, UPPER, Spread
from server.core.errors import RequestError, error_content, log_failure
from server.metrics.request_metrics import STAGES, observe_request
from server.models.current_model import Model
from server.models.served_models import NotInMemory, ServedModels
from server.validation.request_body import Rows
from server.validation.rows import require_row_limit

FAST_ROUTES = PREDICT_ROUTE, SCORING_ROUTE = ("/predict", "/invocations")
PARSE_STAGE, VALIDATE_STAGE, PREDICT_STAGE, SERIALISE_STAGE = range(len(STAGES))
PREDICTIONS, ADAPTED = "predictions", "adapted_labels"
REQUEST_ID_HEADER = "X-Request-Id"  # a header, since MLflow's protocol has no field for it
DEFAULT_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class PredictionRequest(NamedTuple):
    """A request of a fast route."""

    route: str
    content_type: str
    query: str
    key: str | None
    body: bytes
    path: str = ""  # if the route has variable parts
    header_length: str = ""  # bytes of the JSON part of a body with binary tensors
    name: str = ""  # of the model, if the path has it
    version: str | None = None  # if the path has it
    may_load: bool = True  # a model that is not in memory


class PredictionResponse(NamedTuple):
    """The response to a request of a fast route."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class PredictionResult(NamedTuple):
    """Predictions, with the bounds of intervals and a list of quantiles by level if they are requested."""

    values: dict[str, Any]
    spread: Spread
    adapted_labels: int = 0  # from which the intervals follow, if they are adapted to feedback

    @property
    def parameters(self) -> dict[str, Any]:
        """The levels of intervals and quantiles by name, and the labels to which they are adapted."""
        return {**self.spread.parameters, **({ADAPTED: self.adapted_labels} if self.adapted_labels else {})}

    def to_dict(self) -> dict[str, Any]:
        """Return predictions, bounds and quantiles by name; quantiles by level."""
        coverage, levels = self.spread
        named = self.values if coverage is None else {**self.values, INTERVAL: coverage}
        named = {**named, ADAPTED: self.adapted_labels} if self.adapted_labels else named
        return {**named, QUANTILES: dict(zip(map(str, levels), self.values[QUANTILES], strict=True))} if levels else named


class StageTimer:
    """Measures the seconds that a request spends in each stage."""

    def __init__(self, start: float) -> None:
        """Take the time at which the request began."""
        self.start, self.seconds = start, [0.0] * len(STAGES)
        self._lap_start = time.perf_counter()

    def lap(self, stage: int) -> None:
        """Add the time since the last lap to a stage."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._lap_start
        self._lap_start = now


Answer = tuple[str, bytes, tuple[tuple[str, str], ...]]  # media type, body, and headers beside the usual ones
Write = Callable[[str, PredictionResult], Answer]  # takes the ID of the request
ParsedRequest = tuple[Rows, Matrix, Spread, Write]  # the rows as sent and as a matrix; plain tuples, since this is the hot path
Reader = Callable[[PredictionRequest, Model, StageTimer], ParsedRequest]  # raises RequestError


class PredictionApi:
    """Answers the fast routes."""

    def __init__(
        self,
        models: ServedModels,
        access: Access,
        readers: Mapping[str, Reader],
        next_id: Callable[[], str],
        write_log: Callable[[dict[str, Any]], None],
        observe_stages: Callable[[Sequence[float]], None],
    ) -> None:
        """Take the reader of each route, and the functions that make IDs, log a request and count its stages."""
        self._models, self._access, self._readers = models, access, readers
        self._next_id, self._write_log, self._observe_stages = next_id, write_log, observe_stages

    def handle(self, request: PredictionRequest) -> PredictionResponse:
        """Authorize a request, answer it, and count it. Errors are answered, too, but NotInMemory is raised."""
        start, name, model, request_id = time.perf_counter(), "", None, self._next_id()
        try:
            require_model_right(self._access.check(request.key, PREDICT), self._models, request.name)
            choice = request.key or request_id if request.version is None else ""  # of the canary or the current model
            model = require_model(self._models, request.name, request.may_load, choice)
            if request.name:
                name = model.name
            response = self._answer(request, request_id, model, StageTimer(start))
        except NotInMemory:
            raise
        except RequestError as error:
            response = _error_response(request.path, error)
        except Exception as error:  # pylint: disable=broad-exception-caught  # no request may end a worker
            content_type, body = error_content(request.path, 500, log_failure(error))
            response = PredictionResponse(500, _headers(content_type), body)
            if model is not None:
                entry = _log_entry(request.route, request_id, model, start)
                self._write_log({**entry, "columns": (), "rows": (), PREDICTIONS: (), "failed": type(error).__name__})
        observe_request(request.route, response.status, time.perf_counter() - start, name)
        return response

    def max_body(self, name: str) -> int:
        """Return the most bytes of a body for a model, or for the first one."""
        return self._models.limits(name).max_body

    def reject(self, route: str, path: str, error: RequestError) -> PredictionResponse:
        """Answer a request whose body could not be read."""
        observe_request(route, int(error.status), 0.0)
        return _error_response(path, error)

    def _answer(self, request: PredictionRequest, request_id: str, model: Model, timer: StageTimer) -> PredictionResponse:
        rows, matrix, spread, write = self._readers[request.route](request, model, timer)
        require_row_limit(len(matrix), self._models.limits(request.name).max_rows)
        result = _predict(model, matrix, spread)
        timer.lap(PREDICT_STAGE)
        content_type, body, headers = write(request_id, result)
        response = PredictionResponse(200, [*_headers(content_type), (REQUEST_ID_HEADER, request_id), *headers], body)
        timer.lap(SERIALISE_STAGE)
        self._log(request.route, request_id, model, rows, result, timer.start)
        model.metrics.add(matrix, result.values[PREDICTIONS], result.values.get(LOWER), result.values.get(UPPER))
        self._observe_stages(timer.seconds)
        return response

    def _log(self, route: str, request_id: str, model: Model, payload: Rows, result: PredictionResult, start: float) -> None:
        names = model.validator.column_names
        self._write_log(
            {
                **_log_entry(route, request_id, model, start),
                "columns": payload.columns or names,
                "rows": payload.rows if payload.columns else [[row[column] for column in names] for row in payload.rows],
                **result.to_dict(),
            }
        )


def _log_entry(route: str, request_id: str, model: Model, start: float) -> dict[str, Any]:
    """Return the origin of an answer, as the log has it."""
    return {
        "id": request_id,
        "time": time.time(),
        "route": route,
        **({"name": model.name} if model.name else {}),
        **model.info,
        "run_id": model.bundle.card["run_id"],
        "latency_ms": round(1000 * (time.perf_counter() - start), 3),
    }


def require_model_right(key: ApiKey | None, models: ServedModels, name: str) -> None:
    """Raise RequestError (403) if a key is for other models. `name` is the one in the path, or "" for the first model."""
    if key is not None and key.models and (listed := models.listed_name(name)) not in key.models:
        raise RequestError(HTTPStatus.FORBIDDEN, f"This API key is not for the model {listed}.")


def require_model(models: ServedModels, name: str = "", may_load: bool = True, choice: str = "") -> Model:
    """Return the model of a name, or the first one. Raises RequestError if there is no such name or no model (503)."""
    try:
        return models.get(name, may_load, choice)
    except BundleError as error:
        raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error


def _predict(model: Model, matrix: Matrix, spread: Spread) -> PredictionResult:
    """Predict rows, with intervals or quantiles if requested. Raises RequestError if the model has none of that kind."""
    if spread == POINT:
        return PredictionResult({PREDICTIONS: model.bundle.predict(matrix)}, spread)
    values: dict[str, Any] = {}
    try:
        if spread.coverage is not None:
            interval = model.bundle.predict_interval(matrix, spread.coverage)
            values = dict(zip((PREDICTIONS, LOWER, UPPER), interval, strict=True))
        if spread.levels:
            values[PREDICTIONS], *values[QUANTILES] = model.bundle.predict_quantiles(matrix, spread.levels)
    except (BundleError, ConfigError) as error:  # no intervals, or none with this coverage or these levels
        raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
    return PredictionResult(values, spread, 0 if model.adaptation is None else model.adaptation.n_labels)


def _error_response(path: str, error: RequestError) -> PredictionResponse:
    content_type, body = error_content(path, error.status, error.detail, error.problems)
    return PredictionResponse(int(error.status), _headers(content_type) + list(error.headers.items()), body)


def _headers(content_type: str) -> list[tuple[str, str]]:
    """Return the headers of every response, with its content type."""
    return [("Content-Type", content_type), *DEFAULT_HEADERS.items()]
