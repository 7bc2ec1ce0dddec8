"""The cost of a request over gRPC and over REST, if both read a tensor and answer with its first column, without a model."""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir

from housing.core.config import CONF
from housing.core.environment import PROJECT
from housing.serving.supervisor import server_environment
from scripts.benchmarks.processes import PYTHON, ROUNDS, cpu_seconds, project_environment
from scripts.benchmarks.serving import JSON_HEADERS, N_ROWS, Server, free_port, started
from server.core.settings import ENV_PREFIX
from tests.support.peer_environments import peer_python

GRPC = PROJECT / "scripts" / "benchmarks" / "peers" / "grpc_echo.py"
WORKER = ("--worker-class=server.transport.gunicorn_worker.Worker", "--workers=1", "--threads=8", "--keep-alive=30")
QUIET = ("--log-level=warning", "--no-control-socket")
N_REQUESTS = {1: 8000, 100: 4000, 1000: 2000}
N_COLUMNS = 8


def print_grpc() -> None:
    """Print processor milliseconds of the server for a request of each size: gRPC, REST with JSON, and REST with raw bytes."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        home = Path(name)
        port, process = stack.enter_context(_grpc_server())
        text = stack.enter_context(_rest_server())
        raw = Server("REST, binary", text.url, "binary", text.process)
        over_grpc: dict[int, list[float]] = {n_rows: [] for n_rows in N_ROWS}
        for number in range(ROUNDS):
            for n_rows in N_ROWS:
                over_grpc[n_rows].append(_measure_grpc(port, process, n_rows))
                for server in (text, raw):
                    body, headers = _body(n_rows, server is raw)
                    server.measure([body], n_rows, home, headers)
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr, flush=True)
    print("| rows | gRPC, ms | REST, JSON, ms | REST, binary, ms | gRPC's time / that of binary REST, each round |")
    print("|---:|---:|---:|---:|---|")
    for n_rows in N_ROWS:
        times = [over_grpc[n_rows], *([cost for _, cost in server.measured[n_rows]] for server in (text, raw))]
        each = " ".join(f"{grpc / binary:.1f}" for grpc, binary in zip(times[0], times[2], strict=True))
        print(f"| {n_rows} | {' | '.join(f'{statistics.median(costs):.3f}' for costs in times)} | {each} |")


def _measure_grpc(port: int, process: "subprocess.Popen[bytes]", n_rows: int) -> float:
    before = cpu_seconds(process.pid)
    _load_grpc(port, n_rows, N_REQUESTS[n_rows])
    return 1000 * (cpu_seconds(process.pid) - before) / N_REQUESTS[n_rows]


def _load_grpc(port: int, n_rows: int, count: int) -> None:
    subprocess.run([peer_python("mlserver"), str(GRPC), "load", str(port), str(n_rows), str(count)], check=True)


@contextmanager
def _grpc_server() -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """Run the server of gRPC for the time of a block. It has answered when the block begins, so its start is not measured."""
    port = free_port()
    with subprocess.Popen([peer_python("mlserver"), str(GRPC), "serve", str(port)], env=project_environment()) as process:
        try:
            _load_grpc(port, 1, 80)
            yield port, process
        finally:
            process.terminate()


@contextmanager
def _rest_server() -> Iterator[Server]:
    port = free_port()
    arguments = ("-m", "gunicorn", *WORKER, *QUIET, f"--bind=127.0.0.1:{port}", "scripts.benchmarks.peers.rest_echo_app:app")
    with initialize_config_dir(CONF, version_base="1.3"):
        settings = server_environment(compose("serve").serve)
    variables = {name: value for name, value in settings.items() if name.startswith(ENV_PREFIX)}
    url = f"http://127.0.0.1:{port}/v2/models/echo/infer"
    with started("REST, JSON", url, "json", PROJECT, arguments, variables, PYTHON) as server:
        yield server


def _body(n_rows: int, is_binary: bool) -> tuple[bytes, dict[str, str]]:
    """Return a request of one tensor, with its headers."""
    matrix = np.random.default_rng(0).normal(size=(n_rows, N_COLUMNS))
    tensor = {"name": "rows", "shape": matrix.shape, "datatype": "FP64"}
    if not is_binary:
        return json.dumps({"inputs": [{**tensor, "data": matrix.ravel().tolist()}]}).encode(), dict(JSON_HEADERS)
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": matrix.nbytes}}]}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return head + matrix.tobytes(), headers
