"""The server alone: its start, the memory of a worker, the processor time of a request, by the rows of the fitted table."""

import http.client
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from housing.core.environment import PROJECT
from scripts.benchmarks.processes import (
    PYTHON,
    ROUNDS,
    children_of,
    cpu_seconds,
    make_home,
    newest_bundle,
    project_environment,
    run,
)

PORT = 18431
N_WORKERS = 2  # what both have in memory is shared
N_REQUESTS = 3000
N_ROWS = tuple(map(int, os.environ.get("ROWS", "20000 1000000").split()))
MODEL = (  # the default model; fewer trees than it has, since they do not depend on the rows of the table
    "experiment=default",
    "figures=false",
    *(
        f"model.members.{name}.model.estimator.{setting}"
        for name in ("boosted", "encoded")
        for setting in ("n_estimators=60", "learning_rate=0.2")
    ),
)
LOADING = """
import sys, time
from pathlib import Path
from housing.bundle.bundle import Bundle
start = time.process_time()
Bundle.read(Path(sys.argv[1]))
print(time.process_time() - start)
"""


def print_footprint() -> None:
    """Print what a server with the default model takes. ROWS="20000 1000000" changes the rows of the tables."""
    print("| rows | bundle, MB | start to first response, s | loading, CPU s ", end="")
    print("| a worker's own memory, MB | shared, MB | peak, MB | a row, CPU µs |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for rows in N_ROWS:
        data = ("data=synthetic", f"data.rows={rows}")
        with tempfile.TemporaryDirectory() as directory:
            home = make_home(directory)
            run("-m", "housing.fetch", *data, home=home)
            run("-m", "housing.train", *MODEL, *data, home=home)
            run("-m", "housing.promote", *data, "gate.smoke_test_seconds=null", home=home)
            bundle = newest_bundle(Path(home))
            size = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()) / 1e6
            rounds = [_serve_once(home, bundle, data) for _ in range(ROUNDS)]
        start, load, private, shared, peak, row = (statistics.median(values) for values in zip(*rounds, strict=True))
        print(
            f"| {rows:,} | {size:.0f} | {start:.1f} | {load:.2f} | {private:.0f} | {shared:.0f} | {peak:.0f} | {row:.0f} |",
            flush=True,
        )


def _serve_once(home: str, bundle: Path, data: tuple[str, ...]) -> tuple[float, ...]:
    """Start a server, send one row at a time over one connection, and stop it. Return its columns from `start` on."""
    load_seconds = float(run("-c", LOADING, str(bundle), home=home)[1])
    start = time.perf_counter()
    arguments = [
        PYTHON,
        "-m",
        "housing.serve",
        *data,
        f"serve.port={PORT}",
        f"serve.workers={N_WORKERS}",
        "serve.poll_seconds=0.1",
    ]
    environ = project_environment(HOUSING_HOME=home)
    with subprocess.Popen(arguments, env=environ, cwd=PROJECT, stdout=subprocess.DEVNULL) as process:
        first = [PYTHON, os.path.join("scripts", "first_request"), f"http://127.0.0.1:{PORT}"]
        subprocess.run(first, cwd=PROJECT, env=environ, capture_output=True, check=True)
        started, workers = time.perf_counter() - start, _workers_of(process.pid)
        connection = http.client.HTTPConnection("127.0.0.1", PORT)
        connection.request("GET", "/model")
        body = json.dumps(json.load(connection.getresponse())["example"])
        before = list(map(cpu_seconds, workers))
        for _ in range(N_REQUESTS):
            connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            connection.getresponse().read()
        costs = [cpu_seconds(worker) - cost for worker, cost in zip(workers, before, strict=True)]
        cost, worker = max(zip(costs, workers, strict=True))  # one connection is answered by one worker
        memory = _memory(worker)
        process.terminate()
    private, shared = memory["Private_Clean"] + memory["Private_Dirty"], memory["Shared_Clean"] + memory["Shared_Dirty"]
    return started, load_seconds, private, shared, memory["VmHWM"], 1e6 * cost / N_REQUESTS


def _workers_of(pid: int) -> list[int]:
    """Return the gunicorn workers of housing.serve: its only grandchildren."""
    return next(workers for workers in map(children_of, children_of(pid)) if workers)


def _memory(pid: int) -> dict[str, float]:
    """Return the memory of a process in MB by the kernel's names of its kinds."""
    lines = [line for name in ("status", "smaps_rollup") for line in Path(f"/proc/{pid}/{name}").read_text("utf-8").splitlines()]
    fields = (line.partition(":") for line in lines if line.endswith(" kB"))
    return {name: int(value.split()[0]) / 1000 for name, _, value in fields}
