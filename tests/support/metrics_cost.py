"""The cost of metrics and of the prediction log per request, and the cost of a scrape: scripts/bench metrics prints the tables.

PROMETHEUS_MULTIPROC_DIR must name the folder of metrics before the Prometheus client is imported.
"""

import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from housing.server_files import metric_files
from housing.server_files.request_id import make_id_generator
from housing.server_files.rotating_file import PREDICTIONS, RotatingFile
from housing.serving import publishing
from housing.tracking.store import Store
from scripts.benchmarks.serving import promote_model, request_bodies
from server.api import prediction
from server.api.auth import Access
from server.api.row_reader import RowReader
from server.metrics.model_metrics import ModelMetrics
from server.metrics.request_metrics import StageHistogram, observe_request
from server.models.served_models import ServedModels
from server.prediction_log.writer import LOGGER_NAME, FileHandler, PredictionLog
from tests.support.commands import fresh_command
from tests.support.server import Server, model_list, scraped, serving
from tests.support.waiting import wait_for

REQUESTS = {1: 500, 1000: 10}  # repetitions per timing, by rows


TURNS = 10  # of each variant per round: variants alternate because the load of a machine varies


POLL_SECONDS = 1e9  # long enough for the server never to check for a new release


QUEUE = 10**9  # entries: large enough to drop none


SCRAPES = 40


ROWS = 2000  # of the wide table


class NoOp:
    """Stand-in for counters and the prediction log, to time requests without them."""

    def __init__(self, *_: Any) -> None:
        """Accept the arguments of a version's counters."""

    def add(self, *_: Any) -> None:
        """Do nothing."""

    def write(self, _: Any) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def no_op(*_: Any) -> None:
    """Do nothing."""


def main(rounds: int) -> None:
    """Print both tables."""
    metric_files.use_process_name("0")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        matrix, columns = promote_model(home)
        bodies = {rows: request_bodies(columns, matrix[:rows].tolist())["columns"] for rows in REQUESTS}
        cost(home, publish(home), bodies, rounds)
    print("\n| columns | series | /metrics, kB | a scrape, ms |\n|---:|---:|---:|---:|")
    for columns_ in (8, 100):
        scrapes(columns_)


def publish(home: Path) -> Path:
    """Publish the promoted model, as the puller does."""
    with Store(f"sqlite:///{home}/mlflow.db", artifact_root=None, ui="").artifacts.bundle(
        "models:/housing-california@staging"
    ) as bundle:
        served = {"model": "housing-california", "version": "1", "alias": "staging", "mlflow": "3"}
        publishing.publish(home / "published", "1-run", bundle, served)
    return home / "published"


def cost(home: Path, folder: Path, bodies: dict[int, bytes], rounds: int) -> None:
    """Print the time of a request without metrics and log, and the time that each of them adds."""
    print("| rows | neither, microseconds | metrics add | the log adds | both add |\n|---:|---:|---:|---:|---:|")
    for rows, body in bodies.items():
        durations_ = measure(home, folder, body, REQUESTS[rows], rounds)
        neither = durations_.pop((False, False))
        added = [statistics.median(np.subtract(times, neither)) for times in durations_.values()]
        print(
            f"| {rows} | {statistics.median(neither):.0f} | {' | '.join(f'{value:.0f}' for value in added)} |",
            flush=True,
        )


def measure(home: Path, folder: Path, body: bytes, requests: int, rounds: int) -> dict[tuple[bool, bool], list[float]]:
    """Return the microseconds per request in each turn, by (with metrics, with log). The first turn is a warm-up."""
    metrics = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    listed = model_list(folder, "housing-california")
    with_counters = (
        ServedModels(listed, POLL_SECONDS, partial(ModelMetrics, metrics, 0)),
        StageHistogram(metrics, 0).observe,
        observe_request,
    )
    without_counters = ServedModels(listed, POLL_SECONDS, NoOp), no_op, no_op  # type: ignore[arg-type]
    durations_: dict[tuple[bool, bool], list[float]] = {}
    for _ in range(TURNS * rounds + 1):
        for with_metrics, with_log in ((False, False), (True, False), (False, True), (True, True)):
            in_use, stages, observer = with_counters if with_metrics else without_counters
            with log_of(home, with_log) as log, patch.object(prediction, "observe_request", observer):
                readers = {"/predict": RowReader(10_000)}
                api = prediction.PredictionApi(in_use, Access([], 0), readers, make_id_generator(0), log.write, stages)
                durations_.setdefault((with_metrics, with_log), []).append(1e6 * seconds(api, log, body, requests))
    return {parts: times[1:] for parts, times in durations_.items()}


@contextmanager
def log_of(home: Path, is_on: bool) -> Iterator[Any]:
    """Yield a prediction log that writes to a file, or a no-op."""
    if is_on:
        yield PredictionLog(FileHandler(RotatingFile(home / "log", f"{PREDICTIONS}-0", 10**9, 1, 1)), QUEUE)
        logging.getLogger(LOGGER_NAME).handlers.clear()
    else:
        yield NoOp()


def seconds(api: prediction.PredictionApi, log: Any, body: bytes, requests: int) -> float:
    """Return the CPU time of a request, including the log's writer thread."""
    request = prediction.PredictionRequest("/predict", "application/json", "", None, body)
    assert api.handle(request).status == 200
    started = time.process_time()
    for _ in range(requests):
        api.handle(request)
    log.close()
    return (time.process_time() - started) / requests


def scrapes(columns: int) -> None:
    """Print the size and duration of a scrape with two workers and two versions."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        overrides = wide_table(home, columns)
        for seed in (0, 1):
            train(home, *overrides, f"seed={seed}")
        store = Store(f"sqlite:///{home}/mlflow.db", artifact_root=None, ui="")
        runs = store.client.api.search_runs([store.client.experiment_id("wide")], "tags.`housing.run_type` = 'run'")
        with serving(home, "serve.model=housing-wide") as server:
            for run in runs:
                number = store.registry.register("housing-wide", run.info.run_id)
                store.registry.set_alias("housing-wide", "staging", number)
                wait_for(partial(serves, server, number), f"version {number} is served")
                server.predict(server.ask("/model").json["example"])
            sizes = [len(server.ask("/metrics").text) for _ in range(3)]
            print(f"| {columns} | {len(scraped(server))} | {max(sizes) / 1000:.0f} | {1000 * scrape(server):.0f} |", flush=True)


def wide_table(home: Path, columns: int) -> tuple[str, ...]:
    """Write a table with numeric columns and its declaration. Return the overrides that select it."""
    random = np.random.default_rng(0)
    names = [f"column_{number}" for number in range(columns)]
    declared = {**{name: {"type": "float"} for name in names}, "y": {"type": "float", "role": "target"}}
    (home / "data").mkdir()
    table = {"name": "wide", "path": "${paths.data}/wide.csv", "columns": declared}
    (home / "data" / "wide.yaml").write_text(json.dumps(table), encoding="utf-8")  # JSON is YAML
    matrix = random.normal(size=(ROWS, columns + 1))
    np.savetxt(home / "data" / "wide.csv", matrix, delimiter=",", header=",".join([*names, "y"]), comments="")
    return f"--config-dir={home}", "data=wide"


def train(home: Path, *overrides: str) -> None:
    """Train on the wide table."""
    quick = ("model=linear", "features=none", "figures=false", "interval=none")
    result = fresh_command(home, "housing.train", *overrides, *quick)
    assert result.code == 0, result.out + result.err


def serves(server: Server, version: str) -> bool:
    """Return whether all workers serve a version."""
    return {server.ask("/model").json.get("version") for _ in range(20)} == {version}


def scrape(server: Server) -> float:
    """Return the median duration of a scrape in seconds."""
    durations = []
    for _ in range(SCRAPES):
        started = time.perf_counter()
        server.ask("/metrics")
        durations.append(time.perf_counter() - started)
    return statistics.median(durations)


if __name__ == "__main__":
    main(int(sys.argv[1]))
