"""The Open Inference Protocol beside MLServer, and each form of body beside JSON, under the same load in one run."""

import json
import statistics
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import numpy as np
import pyarrow as pa

from housing.core.environment import PROJECT
from housing.tracking.store import Store
from scripts.benchmarks.processes import PYTHON, ROUNDS
from scripts.benchmarks.serving import (
    MODEL_URI,
    N_ROWS,
    PLAIN_TREES,
    Server,
    different_rows,
    free_port,
    promote_model,
    request_bodies,
    started,
)
from tests.support.peer_environments import peer_python

MODEL = "housing-california"
Bodies = dict[str, tuple[bytes, dict[str, str]]]  # by form, with headers
GOALS = {1: 40, 100: 20, 1000: 5}  # times MLServer


def print_protocol() -> None:
    """Print requests per second of this server and of MLServer, and of binary bodies; then those of each form of body."""
    _print_peers()
    print_bodies()


def print_bodies() -> None:
    """Print requests per second and processor time per request of each form of body. The first one is the base of the ratios."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        home = Path(name)
        matrix, names = promote_model(home, PLAIN_TREES)
        tensors = stack.enter_context(_housing(home))
        predict = urljoin(tensors.url, "/predict")
        forms = (
            ("/predict, JSON", predict, "columns"),
            ("/predict, Arrow", predict, "arrow"),
            ("/v2, binary", tensors.url, "binary"),
        )
        servers = [Server(title, url, form, tensors.process) for title, url, form in forms]
        bodies = {n_rows: [_bodies(names, rows) for rows in different_rows(matrix, n_rows)] for n_rows in N_ROWS}
        for n_rows in N_ROWS:
            _require_equal_predictions(servers, bodies[n_rows][0])
        _measure(servers, bodies, home)
    print(
        "| rows | body | bytes | requests/s | processor ms per request | JSON's time / its time |\n|---:|---|---:|---:|---:|---:|"
    )
    for n_rows in N_ROWS:
        base = [seconds for _, seconds in servers[0].measured[n_rows]]
        for server in servers:
            rates, times = zip(*server.measured[n_rows], strict=True)
            ratio = statistics.median(json_ / own for json_, own in zip(base, times, strict=True))
            medians = f"{statistics.median(rates):.0f} | {statistics.median(times):.2f} | {ratio:.2f}"
            print(f"| {n_rows} | {server.name} | {len(bodies[n_rows][0][server.body_form][0]):,} | {medians} |", flush=True)


def _print_peers() -> None:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        home = Path(name)
        matrix, names = promote_model(home, PLAIN_TREES)
        theirs = stack.enter_context(_mlserver(home))
        ours = stack.enter_context(_housing(home))
        binary = Server("housing, binary", ours.url, "binary", ours.process)
        bodies = {n_rows: [_bodies(names, rows) for rows in different_rows(matrix, n_rows)] for n_rows in N_ROWS}
        for n_rows in N_ROWS:
            _require_equal_predictions((theirs, ours, binary), bodies[n_rows][0])
        _measure((theirs, ours, binary), bodies, home)
        _print_table(theirs, ours, binary)


def _measure(servers: Sequence[Server], bodies: Mapping[int, list[Bodies]], home: Path) -> None:
    """Load the servers in turn, in alternating order."""
    for number in range(ROUNDS):
        for n_rows in N_ROWS:
            for server in servers if number % 2 else reversed(servers):
                requests = [forms[server.body_form] for forms in bodies[n_rows]]
                server.measure([body for body, _ in requests], n_rows, home, requests[0][1])
        print(f"round {number + 1} of {ROUNDS}", file=sys.stderr, flush=True)


def _bodies(names: list[str], matrix: Any) -> Bodies:
    """Return the body of these rows in each form, with its headers."""
    shape = [len(matrix)]
    columns = [
        {"name": name, "shape": shape, "datatype": "FP64", "data": values.tolist()}
        for name, values in zip(names, matrix.T, strict=True)
    ]
    text = json.dumps({"inputs": columns, "parameters": {"content_type": "pd"}}, separators=(",", ":")).encode()
    rows = {"name": "rows", "shape": list(matrix.shape), "datatype": "FP64", "parameters": {"binary_data_size": matrix.nbytes}}
    head = json.dumps({"inputs": [rows], "parameters": {"binary_data_output": True}}, separators=(",", ":")).encode()
    length = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return {
        "json": (text, {"Content-Type": "application/json"}),
        "binary": (head + matrix.tobytes(), length),
        "columns": (request_bodies(names, matrix.tolist())["columns"], {"Content-Type": "application/json"}),
        "arrow": (_arrow_stream(names, matrix), {"Content-Type": "application/vnd.apache.arrow.stream"}),
    }


def _arrow_stream(names: list[str], matrix: Any) -> bytes:
    table, sink = pa.table(list(matrix.T), names), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream


def _require_equal_predictions(servers: Sequence[Server], bodies: Bodies) -> None:
    expected = None
    for server in servers:
        body, headers = bodies[server.body_form]
        with urllib.request.urlopen(urllib.request.Request(server.url, body, headers), timeout=60) as response:
            answer, length = response.read(), response.headers["Inference-Header-Content-Length"]
        predictions = np.frombuffer(answer[int(length) :], "<f8") if length else _json_predictions(json.loads(answer))
        expected = predictions if expected is None else expected
        if not np.allclose(predictions.ravel(), expected.ravel(), atol=1e-4):
            sys.exit(f"error: {server.name} predicts other values than {servers[0].name}")


def _json_predictions(answer: dict[str, Any]) -> Any:
    return np.array(answer["outputs"][0]["data"] if "outputs" in answer else answer["predictions"])


@contextmanager
def _mlserver(home: Path) -> Iterator[Server]:
    """Serve the promoted model's MLflow files with one MLServer, without its pool of processes, which only adds time."""
    store = Store(f"sqlite:///{home}/mlflow.db", artifact_root=None, ui="")
    folder, port = home / "mlserver", free_port()
    folder.mkdir()
    with store.artifacts.bundle(MODEL_URI) as bundle:
        model = {
            "name": MODEL,
            "implementation": "mlserver_mlflow.MLflowRuntime",
            "parameters": {"uri": str(bundle.parent.parent)},
        }
        (folder / "model-settings.json").write_text(json.dumps(model), "utf-8")
        others = {"grpc_port": free_port(), "metrics_port": free_port()}
        settings = {"host": "127.0.0.1", "http_port": port, **others, "parallel_workers": 0, "debug": False}
        (folder / "settings.json").write_text(json.dumps(settings), "utf-8")
        python = peer_python("mlserver")
        url = f"http://127.0.0.1:{port}/v2/models/{MODEL}/infer"
        with started(
            "MLServer",
            url,
            "json",
            home,
            ("-m", "mlserver.cli.main", "start", str(folder)),
            {},
            python,
            f"/v2/models/{MODEL}/ready",
        ) as server:
            yield server


@contextmanager
def _housing(home: Path) -> Iterator[Server]:
    port = free_port()
    arguments = ("-m", "housing.serve", f"serve.port={port}", "serve.workers=1")
    url = f"http://127.0.0.1:{port}/v2/models/{MODEL}/infer"
    environ = {"HOUSING_HOME": str(home)}
    with started("housing, JSON", url, "json", PROJECT, arguments, environ, PYTHON, "/v2/health/ready") as server:
        yield server


def _print_table(theirs: Server, ours: Server, binary: Server) -> None:
    print("| rows | MLServer, requests/s | housing, JSON | x MLServer | goal | each round | housing, binary | x JSON |")
    print("|---:|---:|---:|---:|---:|---|---:|---:|")
    for n_rows in N_ROWS:
        rates = [[rate for rate, _ in server.measured[n_rows]] for server in (theirs, ours, binary)]
        peer, text, raw = map(statistics.median, rates)
        ratios = [own / base for own, base in zip(rates[1], rates[0], strict=True)]
        of_json = statistics.median(own / base for own, base in zip(rates[2], rates[1], strict=True))
        each = " ".join(f"{ratio:.1f}" for ratio in ratios)
        medians = f"{peer:.0f} | {text:.0f} | **{statistics.median(ratios):.1f}** | {GOALS[n_rows]}"
        print(f"| {n_rows} | {medians} | {each} | {raw:.0f} | {of_json:.1f} |", flush=True)
