"""OpenTelemetry traces, imported only if they are on: a span for each request, with a child for each stage of a prediction."""

import time
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

from flask import Response, request
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from server.api.prediction import PREDICTIONS, PredictionApi, PredictionRequest, PredictionResponse, PredictionResult, StageTimer
from server.metrics.request_metrics import STAGES
from server.models.current_model import Model
from server.transport.event_loop import HEALTH_ROUTES
from server.transport.fast_path import Application, Environ, StartResponse
from server.transport.metrics_port import METRICS_ROUTE
from server.validation.request_body import Rows

UNTRACED = {*HEALTH_ROUTES, METRICS_ROUTE}
PROPAGATOR = TraceContextTextMapPropagator()


class SpanTimer(StageTimer):
    """Measures the stages of a request, and records a span for each."""

    def __init__(self, start: float, tracer: Tracer) -> None:
        super().__init__(start)
        self._tracer, self._span_start = tracer, time.time_ns()

    def lap(self, stage: int) -> None:
        """Add the time since the last lap to a stage. The time to record the span belongs to no stage."""
        end = time.time_ns()
        super().lap(stage)
        self._tracer.start_span(STAGES[stage], start_time=self._span_start).end(end)
        self._span_start, self._lap_start = time.time_ns(), time.perf_counter()


class TracedPredictionApi(PredictionApi):
    """Answers the fast routes, and describes each request in its span."""

    def __init__(self, tracer: Tracer, *parts: Any) -> None:
        super().__init__(*parts)
        self._tracer = tracer

    def handle(self, request: PredictionRequest) -> PredictionResponse:  # pylint: disable=redefined-outer-name
        """Answer a request, as the base class does."""
        _set_route("POST", request.route)
        return super().handle(request)

    # pylint: disable-next=redefined-outer-name
    def _answer(self, request: PredictionRequest, request_id: str, model: Model, timer: StageTimer) -> PredictionResponse:
        span = trace.get_current_span()
        if not span.is_recording():
            return super()._answer(request, request_id, model, timer)
        span.set_attributes({f"housing.{name}": value for name, value in {**model.info, "request_id": request_id}.items()})
        try:
            return super()._answer(request, request_id, model, SpanTimer(timer.start, self._tracer))
        except Exception as error:
            span.record_exception(error)
            raise

    def _log(self, route: str, request_id: str, model: Model, payload: Rows, result: PredictionResult, start: float) -> None:
        span = trace.get_current_span()
        span.set_attribute("housing.rows", len(result.values[PREDICTIONS]))
        with self._tracer.start_as_current_span("log") if span.is_recording() else nullcontext():
            super()._log(route, request_id, model, payload, result, start)


class TracingMiddleware:
    """A WSGI application that records the span of each request to another application, except for probes and metrics."""

    def __init__(self, tracer: Tracer, app: Application) -> None:
        self._tracer, self._app = tracer, app

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request. The response names its span in the header traceresponse (W3C Trace Context, level 2)."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if path in UNTRACED or path.endswith("/ready"):
            return self._app(environ, start_response)
        described = {"http.request.method": method, "url.path": path}
        carrier = {field: environ.get(f"HTTP_{field.upper()}", "") for field in PROPAGATOR.fields}
        span = self._tracer.start_span("HTTP", PROPAGATOR.extract(carrier, Context()), SpanKind.SERVER, described)
        ids = span.get_span_context()
        header = ("traceresponse", f"00-{ids.trace_id:032x}-{ids.span_id:016x}-{ids.trace_flags:02x}")

        def start(status: str, headers: list[tuple[str, str]], *error: object) -> object:
            span.set_attribute("http.response.status_code", int(status[:3]))
            if status.startswith("5"):
                span.set_status(StatusCode.ERROR)
            return start_response(status, [*headers, header], *error)

        if not span.is_recording():
            return self._app(environ, start)
        with trace.use_span(span):
            chunks = self._app(environ, start)  # raises NotInMemory, and is then called again, in another span
        span.end()
        return chunks


def name_span(response: Response) -> Response:
    """Name the span of a request that Flask has answered after its route, which has no value of a client."""
    if request.url_rule:
        _set_route(request.method, request.url_rule.rule)
    return response


def _set_route(method: str, route: str) -> None:
    span = trace.get_current_span()
    if span.is_recording():
        span.update_name(f"{method} {route}")
        span.set_attribute("http.route", route)
