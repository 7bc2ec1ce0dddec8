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
from server.core.errors import PROBLEM, RequestError, failed, problem
from server.metrics.request_metrics import STAGES, observe
from server.models.current_model import InUse, Model
from server.validation import request_body
from server.validation.request_body import CSV, JSON, Rows

PREDICT_ROUTE, SCORING_ROUTE = "/predict", "/invocations"


ROUTES = (PREDICT_ROUTE, SCORING_ROUTE)


PARSED, VALIDATED, PREDICTED, SERIALISED = range(len(STAGES))


REQUEST_ID = "X-Request-Id"  # MLflow's protocol has no place for it in the body


HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Asked(NamedTuple):
    """A request of a hot route."""

    route: str
    content_type: str
    query: str
    key: str | None
    body: bytes


class Answer(NamedTuple):
    """What is answered."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(frozen=True)
class Predicted:
    """Predictions, with the ends of intervals where they were asked for."""

    names: tuple[str, ...]
    values: tuple[Any, ...]
    coverage: float | None

    def to_dict(self) -> dict[str, Any]:
        """Give them by name."""
        named = dict(zip(self.names, self.values, strict=True))
        return named if self.coverage is None else {**named, "interval": self.coverage}


class Watch:
    """Takes the time of a request's stages, as often as each comes."""

    def __init__(self) -> None:
        self.seconds = [0.0] * len(STAGES)
        self._since = time.perf_counter()

    def lap(self, stage: int) -> None:
        """Add the time since the last lap to a stage."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._since
        self._since = now


class Api:
    """Answers the hot routes."""

    def __init__(
        self,
        in_use: InUse,
        access: Access,
        max_rows: int,
        next_id: Callable[[], str],
        write_log: Callable[[dict[str, Any]], None],
        observe_stages: Callable[[Sequence[float]], None],
    ) -> None:
        self._in_use, self._access, self._max_rows = in_use, access, max_rows
        self._next_id, self._write_log, self._observe_stages = next_id, write_log, observe_stages

    def answer(self, asked: Asked) -> Answer:
        """Answer a request: let it in, read, check, predict, log, count."""
        begun = time.perf_counter()
        try:
            self._access.check(asked.key, PREDICT)
            model = self._model()
            watch = Watch()
            given, matrix = self._read(asked, model, watch)
            predicted = _predict(model, matrix, _coverage(asked.query))
            watch.lap(PREDICTED)
            name = self._next_id()
            headers = [*_headers("application/json"), (REQUEST_ID, name)]
            answer = Answer(200, headers, _success(asked.route, name, model, predicted))
            watch.lap(SERIALISED)
            self._log(asked.route, name, model, given, predicted, begun)
            model.counts.add(matrix, *predicted.values)
            self._observe_stages(watch.seconds)
        except RequestError as error:
            body = problem(error.status, error.detail, error.problems)
            answer = Answer(int(error.status), _headers(PROBLEM) + list(error.headers.items()), body)
        except Exception as error:  # pylint: disable=broad-exception-caught  # no request may end a worker
            answer = Answer(500, _headers(PROBLEM), problem(500, failed(error)))
        observe(asked.route, answer.status, time.perf_counter() - begun)
        return answer

    def refuse(self, route: str, error: RequestError) -> Answer:
        """Answer a request whose body cannot be had."""
        observe(route, int(error.status), 0.0)
        return Answer(int(error.status), _headers(PROBLEM), problem(error.status, error.detail))

    def _model(self) -> Model:
        try:
            return self._in_use.get()
        except BundleError as error:
            raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, f"not ready: {error}") from error

    def _read(self, asked: Asked, model: Model, watch: Watch) -> tuple[Rows, Matrix]:
        """Give the rows of a body, and the matrix that the model takes."""
        allowed = (JSON,) if asked.route == PREDICT_ROUTE else (JSON, CSV)
        if request_body.media_type(asked.content_type, *allowed) == CSV:
            return self._checked(request_body.of_csv(asked.body, model.bundle.schema.features), model, watch)
        try:
            given = self._form(asked.route, request_body.quickly(asked.body), model)
            watch.lap(PARSED)
            matrix = model.check.matrix(given) if len(given.rows) <= self._max_rows else None
            watch.lap(VALIDATED)
            if matrix is not None and asked.body.count(b":") == given.keys(matrix.shape[1]):
                return given, matrix
        except (ValueError, RequestError):
            pass  # what is wrong is told by who reads strictly
        # not JSON, not allowed, a key that is there twice, or a text with a colon
        return self._checked(self._form(asked.route, request_body.strictly(asked.body), model), model, watch)

    def _form(self, route: str, body: Any, model: Model) -> Rows:
        if route == PREDICT_ROUTE:
            return request_body.of_predict(body)
        return request_body.of_scoring(body, model.bundle.schema.features)

    def _checked(self, given: Rows, model: Model, watch: Watch) -> tuple[Rows, Matrix]:
        watch.lap(PARSED)
        if len(given.rows) > self._max_rows:
            raise RequestError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has {len(given.rows)} rows; allowed: {self._max_rows}"
            )
        matrix = model.check.require(given)
        watch.lap(VALIDATED)
        return given, matrix

    def _log(self, route: str, name: str, model: Model, given: Rows, predicted: Predicted, begun: float) -> None:
        names = model.check.names
        self._write_log(
            {
                "id": name,
                "time": time.time(),
                "route": route,
                **model.told,
                "run_id": model.bundle.card["run_id"],
                "ms": round(1000 * (time.perf_counter() - begun), 3),
                "columns": given.columns or names,
                "rows": given.rows if given.columns else [[row[column] for column in names] for row in given.rows],
                **predicted.to_dict(),
            }
        )


def _predict(model: Model, matrix: Matrix, coverage: float | None) -> Predicted:
    if coverage is None:
        return Predicted(("predictions",), (model.bundle.predict(matrix),), None)
    try:
        values = model.bundle.predict_interval(matrix, coverage)
    except (BundleError, ConfigError) as error:  # no intervals, or none that wide
        raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
    return Predicted(("predictions", "lower", "upper"), values, coverage)


def _coverage(query: str) -> float | None:
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


def _success(route: str, name: str, model: Model, predicted: Predicted) -> bytes:
    told = {} if route == SCORING_ROUTE else {**model.told, "request_id": name}
    return orjson.dumps({**predicted.to_dict(), **told}, option=orjson.OPT_SERIALIZE_NUMPY)


def _headers(content_type: str) -> list[tuple[str, str]]:
    return [("Content-Type", content_type), *HEADERS.items()]
