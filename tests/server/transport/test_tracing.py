"""Traces of a real server, sent to a real receiver: spans, their tree, and what is not traced."""

import json
import shutil
import sys
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from housing.core.traces import exporter_error
from tests.support.cluster import MlflowServer
from tests.support.commands import fresh_command, user_error
from tests.support.server import Server, serving
from tests.support.tables import FLAT
from tests.support.waiting import wait_for

EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
pytest.importorskip(EXPORTER, reason="the exporter of traces is not installed: locks/traces.txt")
from tests.support.traces import Receiver, attributes, receiving  # noqa: E402  # pylint: disable=wrong-import-position

STAGES = {"parse", "validate", "predict", "serialise", "log"}
CALLER, SAMPLED, UNSAMPLED = "00f067aa0ba902b7", "4bf92f3577b34da6a3ce929d0e0e4736", "5bf92f3577b34da6a3ce929d0e0e4736"
# far longer than the test: only the end of a worker sends spans
LATE = {"OTEL_BSP_SCHEDULE_DELAY": "3600000", "OTEL_SERVICE_NAME": "rents"}


def send(server: Server, route: str, row: object = None, **headers: str) -> tuple[int, Message]:
    """Send a row, or nothing. Return the status and the headers of the response."""
    body = None if row is None else json.dumps(row).encode()
    request = urllib.request.Request(f"{server.url}{route}", body, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers


def traced(receiver: Receiver, home: Path, *overrides: str, **variables: str) -> Any:
    """Return the context of a server that sends its spans when it ends."""
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, **LATE, **variables}
    return serving(home, "serve.workers=1", *overrides, environment=environment)


def test_a_request_is_a_tree_of_spans_that_is_sent_at_the_end_of_its_worker(served_home: Path) -> None:
    with receiving() as receiver:
        with traced(receiver, served_home) as server:
            wait_for(lambda: server.answers("/readyz"), "the model is published")
            assert server.answers("/metrics")
            status, headers = send(server, "/predict", FLAT, traceparent=f"00-{SAMPLED}-{CALLER}-01")
            refused, other_headers = send(server, "/predict", {**FLAT, "area": "?"})
            assert send(server, "/model")[0] == 200
            answer = send(server, "/predict", FLAT, traceparent=f"00-{UNSAMPLED}-{CALLER}-00")
        assert (status, refused, answer[0]) == (200, 422, 200)
        assert answer[1]["traceresponse"].startswith(f"00-{UNSAMPLED}-") and answer[1]["traceresponse"].endswith("-00")
        assert receiver.services == {"rents"}
        assert not receiver.of_trace(UNSAMPLED)

        (root,) = (span for span in receiver.of_trace(SAMPLED) if span.parent_span_id.hex() == CALLER)
        children = [span for span in receiver.of_trace(SAMPLED) if span.span_id != root.span_id]
        assert headers["traceresponse"] == f"00-{SAMPLED}-{root.span_id.hex()}-01"
        assert {span.name for span in children} == STAGES
        assert all(span.parent_span_id == root.span_id for span in children)
        assert all(
            root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano <= root.end_time_unix_nano
            for span in children
        )
        assert root.name == "POST /predict"
        assert attributes(root) == {
            "http.request.method": "POST",
            "url.path": "/predict",
            "http.route": "/predict",
            "http.response.status_code": 200,
            "housing.model": "housing-rentals",
            "housing.version": "1",
            "housing.rows": 1,
            "housing.request_id": headers["X-Request-Id"],
        }

        (failed,) = (span for span in receiver.of_trace(other_headers["traceresponse"].split("-")[1]) if not span.parent_span_id)
        assert attributes(failed)["http.response.status_code"] == 422
        (event,) = failed.events
        assert event.name == "exception"
        routes = {attributes(span).get("http.route") for span in receiver.spans if not span.parent_span_id}
        assert routes == {"/predict", "/model"}  # neither probes nor metrics


def test_a_request_that_is_not_sampled_sends_nothing(served_home: Path) -> None:
    with receiving() as receiver:
        with traced(receiver, served_home, OTEL_TRACES_SAMPLER="always_off") as server:
            wait_for(lambda: server.answers("/readyz"), "the model is published")
            status, headers = send(server, "/predict", FLAT)
        assert status == 200
        assert int(headers["traceresponse"][-2:], 16) & 1 == 0  # the flag "sampled"
        assert not receiver.spans


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER must be otlp or none (got zipkin)."),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf (got grpc).",
        ),
    ],
)
def test_another_exporter_is_refused(variables: dict[str, str], message: str) -> None:
    assert exporter_error(variables) == message


def test_a_server_that_cannot_export_does_not_start(tmp_path: Path) -> None:
    result = fresh_command(tmp_path, "housing.serve", OTEL_TRACES_EXPORTER="zipkin")
    assert user_error(result) == "OTEL_TRACES_EXPORTER must be otlp or none (got zipkin)."


def test_without_the_exporter_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, EXPORTER, None)
    error = exporter_error({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})
    assert error.startswith("OTEL_EXPORTER_OTLP_ENDPOINT is set, but the exporter of traces is not installed.")
    assert "pip install 'housing[traces]'" in error


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_SERVICE_NAME": "rents"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_without_an_endpoint_nothing_is_needed(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    monkeypatch.setitem(sys.modules, EXPORTER, None)
    assert exporter_error(variables) == ""


@pytest.mark.long
def test_mlflow_receives_the_traces(served_home: Path, empty_store: Path, tmp_path: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    with MlflowServer(tmp_path, f"sqlite:///{tmp_path}/mlflow.db") as mlflow_server:
        variables = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{mlflow_server.address}/v1/traces",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x-mlflow-experiment-id=0",
        }
        with serving(served_home, "serve.workers=1", environment={**LATE, **variables}) as server:
            wait_for(lambda: server.answers("/readyz"), "the model is published")
            status, headers = send(server, "/predict", FLAT)
        assert status == 200
        traces = MlflowClient(mlflow_server.address).search_traces(locations=["0"])
        (spans,) = (trace.data.spans for trace in traces)
        assert {span.name for span in spans} == {"POST /predict", *STAGES}
        root = next(span for span in spans if span.parent_id is None)
        assert root.attributes["housing.request_id"] == headers["X-Request-Id"]
