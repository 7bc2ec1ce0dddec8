"""The server alone: its start, the memory of a worker, the processor time of a request."""

import http.client
import json
import os
import statistics
import subprocess
import tempfile
import time

from housing.core.environment import PROJECT
from scripts.benchmarks.processes import (
    PYTHON,
    ROUNDS,
    children_of,
    cpu_seconds,
    make_home,
    memory_mb,
    project_environment,
    run,
)

PORT = 18431
N_REQUESTS = 3000


def print_footprint() -> None:
    """Print the start of the server, the memory of a worker, and the processor time of a request of one row."""
    with tempfile.TemporaryDirectory() as directory:
        home = make_home(directory)
        run("-m", "housing.train", "figures=false", home=home)
        run("-m", "housing.promote", home=home)
        rounds = [_serve_once(home) for _ in range(ROUNDS)]
    start, memory, peak, cost = (statistics.median(values) for values in zip(*rounds, strict=True))
    print("| start to first response, s | worker's memory, MB | at its peak | processor time of one row, microseconds |")
    print("|---:|---:|---:|---:|")
    print(f"| {start:.1f} | {memory:.0f} | {peak:.0f} | {cost:.0f} |")


def _serve_once(home: str) -> tuple[float, float, float, float]:
    """Start a server with one worker, send one row at a time over one connection, and stop it."""
    start = time.perf_counter()
    arguments = [PYTHON, "-m", "housing.serve", f"serve.port={PORT}", "serve.workers=1", "serve.poll_seconds=0.1"]
    environ = project_environment(HOUSING_HOME=home)
    with subprocess.Popen(arguments, env=environ, cwd=PROJECT, stdout=subprocess.DEVNULL) as process:
        first = [PYTHON, os.path.join("scripts", "first_request"), f"http://127.0.0.1:{PORT}"]
        subprocess.run(first, cwd=PROJECT, env=environ, capture_output=True, check=True)
        started, worker = time.perf_counter() - start, _worker_of(process.pid)
        connection = http.client.HTTPConnection("127.0.0.1", PORT)
        connection.request("GET", "/model")
        body = json.dumps(json.load(connection.getresponse())["example"])
        before = cpu_seconds(worker)
        for _ in range(N_REQUESTS):
            connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            connection.getresponse().read()
        cost = (cpu_seconds(worker) - before) / N_REQUESTS
        memory, peak = memory_mb(worker, "VmRSS"), memory_mb(worker, "VmHWM")
        process.terminate()
    return started, memory, peak, 1e6 * cost


def _worker_of(pid: int) -> int:
    """Return the gunicorn worker of housing.serve: its only grandchild."""
    return next(workers[0] for workers in map(children_of, children_of(pid)) if workers)
