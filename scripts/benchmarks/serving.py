"""The server beside its peers, under the same load in one run."""

import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urljoin

import numpy as np

from housing.bundle.bundle import Bundle
from housing.core.environment import PROJECT
from housing.tracking.store import Store
from scripts.benchmarks.processes import PYTHON, ROUNDS, TABLE, children_of, cpu_seconds, make_home, project_environment, run

PLAIN_TREES = (
    "model=xgboost",
    "features=none",
    "interval=none",
    "refit=false",
    "figures=false",
    "log_model=best",
    "model.estimator.n_estimators=500",
    "model.estimator.max_depth=6",
)
DEFAULT_MODEL = ("figures=false",)
JSON_HEADERS = MappingProxyType({"Content-Type": "application/json"})
N_ROWS = (1, 100, 1000)
N_CONNECTIONS = 8
LOAD_SECONDS = 5
START_SECONDS = 120
MODEL_URI = "models:/housing-california@staging"
MAX_BODIES = 1000  # different requests of each size; one after the other, then again from the first
ROTATION = """
wrk.method = 'POST'
local requests, last = {}, 0
init = function()
  local file = io.open('BODIES', 'rb')
  for _, size in ipairs({SIZES}) do requests[#requests + 1] = wrk.format(nil, nil, nil, file:read(size)) end
end
request = function()
  last = last % #requests + 1
  return requests[last]
end
"""
GTHREAD = ("-m", "gunicorn", "--workers=1", "--threads=8", "--worker-class=gthread", "--keep-alive=30")


@dataclass
class Server:
    """A running server, one of its routes, and the form of the request bodies that this route takes."""

    name: str
    url: str
    body_form: str
    process: "subprocess.Popen[bytes]"
    measured: dict[int, list[tuple[float, float]]] = field(default_factory=dict)

    def measure(self, bodies: Sequence[bytes], n_rows: int, directory: Path, headers: Mapping[str, str] = JSON_HEADERS) -> None:
        """Send the bodies in turn over all connections; record requests per second and processor milliseconds per request."""
        script, sent = directory / "post.lua", directory / "bodies.bin"
        sent.write_bytes(b"".join(bodies))
        lines = [f"wrk.headers['{name}'] = '{value}'\n" for name, value in headers.items()]
        rotation = ROTATION.replace("BODIES", str(sent)).replace("SIZES", ", ".join(str(len(body)) for body in bodies))
        script.write_text("".join(lines) + rotation, "utf-8")
        before = self._cpu_seconds()
        arguments = ["wrk", "-t1", f"-c{N_CONNECTIONS}", f"-d{LOAD_SECONDS}s", "--timeout=30s", "-s", str(script), self.url]
        output = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
        used = self._cpu_seconds() - before
        if "Non-2xx" in output or "Socket errors" in output:
            sys.exit(f"error: {self.name} failed under load: {output}")
        n_requests = int(re.findall(r"(\d+) requests in", output)[0])
        per_second = float(re.findall(r"Requests/sec: +([\d.]+)", output)[0])
        self.measured.setdefault(n_rows, []).append((per_second, 1000 * used / n_requests))

    def _cpu_seconds(self) -> float:
        return sum(cpu_seconds(pid) for pid in _process_tree(self.process.pid))


def print_peers() -> None:
    """Print requests per second of the server and its peers: plain trees first, then the default model."""
    print("\nXGBoost of 500 plain trees\n")
    _compare(PLAIN_TREES, (_mlflow, _fastapi, _empty_flask, _housing))
    print("\nThe default model\n")
    _compare(DEFAULT_MODEL, (_mlflow, _housing))


def promote_model(home: Path, overrides: Sequence[str] = PLAIN_TREES) -> tuple[Any, list[str]]:
    """Train and promote a model in a new home. Return rows of the table and the names of their columns."""
    make_home(str(home))
    run("-m", "housing.train", *overrides, home=str(home))
    run("-m", "housing.promote", home=str(home))
    store = Store(f"sqlite:///{home}/mlflow.db", artifact_root=None, ui="")
    with store.artifacts.bundle(MODEL_URI) as directory:
        names = [column.name for column in Bundle.read(directory).schema.features]
    table = np.genfromtxt(TABLE, delimiter=",", skip_header=1)
    return table[:, : len(names)], names


def request_bodies(names: list[str], rows: list[list[float]]) -> dict[str, bytes]:
    """Return a request of these rows in each form."""
    forms = {
        "split": {"dataframe_split": {"columns": names, "data": rows}},
        "columns": {"columns": names, "rows": rows},
        "instances": {"instances": [dict(zip(names, row, strict=True)) for row in rows]},
    }
    return {form: json.dumps(body, separators=(",", ":")).encode() for form, body in forms.items()}


def different_rows(matrix: Any, n_rows: int) -> list[Any]:
    """Return the rows of each request, in random order."""
    order = np.random.default_rng(0).permutation(len(matrix))
    starts = range(0, len(matrix) - n_rows + 1, n_rows)[:MAX_BODIES]
    return [matrix[order[start : start + n_rows]] for start in starts]


def _different_bodies(names: list[str], matrix: Any, n_rows: int) -> dict[str, list[bytes]]:
    """Return requests in each form, each with other rows of the table."""
    requests = [request_bodies(names, rows.tolist()) for rows in different_rows(matrix, n_rows)]
    return {form: [request[form] for request in requests] for form in requests[0]}


def _compare(overrides: Sequence[str], starters: Sequence[Callable[[Path], AbstractContextManager[Server]]]) -> None:
    """Load all servers in turn, in rounds, and print a table of medians. The first server is the base of the ratios."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        home = Path(name)
        matrix, names = promote_model(home, overrides)
        servers = [stack.enter_context(start(home)) for start in starters]
        ours = servers[-1]
        servers.append(Server(f"{ours.name}, columns + rows", _with_path(ours.url, "/predict"), "columns", ours.process))
        bodies = {n_rows: _different_bodies(names, matrix, n_rows) for n_rows in N_ROWS}
        for n_rows in N_ROWS:
            _require_equal_predictions(servers, {form: different[0] for form, different in bodies[n_rows].items()})
        for number in range(ROUNDS):
            for n_rows in N_ROWS:
                for server in servers[number % 2 :] + servers[: number % 2]:
                    server.measure(bodies[n_rows][server.body_form], n_rows, home)
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr, flush=True)
        _require_complete_log(ours)
        _print_table(servers)


def _print_table(servers: list[Server]) -> None:
    sizes = " / ".join(map(str, N_ROWS))
    print(f"| one worker, {sizes} rows | requests/s | x mlflow | each round, 1 row | processor ms per request |")
    print("|---|---|---|---|---|")
    for server in servers:
        ratios = {
            n_rows: [own[0] / base[0] for own, base in zip(server.measured[n_rows], servers[0].measured[n_rows], strict=True)]
            for n_rows in N_ROWS
        }
        rate, cost = (
            [statistics.median(values[index] for values in server.measured[n_rows]) for n_rows in N_ROWS] for index in (0, 1)
        )
        cells = (
            " / ".join(f"{value:.0f}" for value in rate),
            f"**{' / '.join(f'{statistics.median(ratios[n_rows]):.1f}' for n_rows in N_ROWS)}**",
            " ".join(f"{ratio:.1f}" for ratio in ratios[1]),
            " / ".join(f"{value:.2f}" for value in cost),
        )
        print(f"| {server.name} | {' | '.join(cells)} |", flush=True)


def _require_equal_predictions(servers: list[Server], bodies: dict[str, bytes]) -> None:
    """Exit if predictions differ within the bounds of the target, which FastAPI's estimator does not know."""
    expected: Any = None
    target = np.genfromtxt(TABLE, delimiter=",", skip_header=1)[:, -1]
    for server in servers:
        with urllib.request.urlopen(
            urllib.request.Request(server.url, bodies[server.body_form], dict(JSON_HEADERS)), timeout=60
        ) as response:
            predictions = np.clip(np.array(json.load(response)["predictions"]), target.min(), target.max())
        expected = predictions if expected is None else expected
        if "empty" not in server.name and not np.allclose(predictions, expected, atol=1e-4):
            sys.exit(f"error: {server.name} predicts other values than {servers[0].name}")


def _require_complete_log(server: Server) -> None:
    with urllib.request.urlopen(_with_path(server.url, "/metrics"), timeout=60) as response:
        if b"\nhousing_log_dropped_total 0.0\n" not in response.read():
            sys.exit("error: the prediction log lacks requests, so the comparison is not fair")


def _mlflow(home: Path) -> AbstractContextManager[Server]:
    port = free_port()
    arguments = ("-m", "mlflow", "models", "serve", "-m", MODEL_URI, "--env-manager=local", "-p", str(port))
    variables = {"MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db"}
    return started("mlflow models serve", f"http://127.0.0.1:{port}/invocations", "split", home, arguments, variables)


def _fastapi(home: Path) -> AbstractContextManager[Server]:
    run("-m", "scripts.benchmarks.peers.fit_estimator", str(home / "model.pkl"), *PLAIN_TREES, home=str(home))
    port = free_port()
    arguments = ("-m", "uvicorn", "scripts.benchmarks.peers.fastapi_app:app", "--port", str(port), "--log-level=warning")
    return started("FastAPI + Pydantic + DataFrame", f"http://127.0.0.1:{port}/predict", "instances", home, arguments, {})


def _empty_flask(home: Path) -> AbstractContextManager[Server]:
    port = free_port()
    arguments = (*GTHREAD, f"--bind=127.0.0.1:{port}", "scripts.benchmarks.peers.empty_flask_app:app")
    return started("an empty Flask endpoint", f"http://127.0.0.1:{port}/predict", "columns", home, arguments, {})


def _housing(home: Path) -> AbstractContextManager[Server]:
    port = free_port()
    arguments = ("-m", "housing.serve", f"serve.port={port}", "serve.workers=1")
    return started("housing", f"http://127.0.0.1:{port}/invocations", "split", PROJECT, arguments, {"HOUSING_HOME": str(home)})


@contextmanager
def started(
    name: str,
    url: str,
    form: str,
    directory: Path,
    arguments: Sequence[str],
    variables: dict[str, str],
    python: str = PYTHON,
    probe: str = "/ping",
) -> Iterator[Server]:
    """Run a server for the time of a block."""
    search_path = f"{Path(python).parent}:{os.environ['PATH']}"  # MLflow looks there for uvicorn
    environ = project_environment(OMP_NUM_THREADS="1", PATH=search_path, **variables)
    with subprocess.Popen([python, *arguments], cwd=directory, env=environ, stdout=subprocess.DEVNULL) as process:
        try:
            _wait_for_response(name, urljoin(url, probe))
            yield Server(name, url, form, process)
        finally:
            process.terminate()


def _wait_for_response(name: str, url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10):
                return
        except urllib.error.HTTPError as error:
            if error.code == 404:  # the server is up and has no such route
                return
        except OSError:
            pass  # not up yet
        if time.monotonic() > deadline:
            sys.exit(f"error: {name} did not respond within {START_SECONDS} s at {url}")
        time.sleep(0.1)


def _with_path(url: str, path: str) -> str:
    return url.rpartition("/")[0] + path


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _process_tree(pid: int) -> list[int]:
    return [pid, *(other for child in children_of(pid) for other in _process_tree(child))]
