"""What metrics and the prediction log cost a request, and what a scrape costs: scripts/bench metrics prints the tables.

The folder of metrics is named by PROMETHEUS_MULTIPROC_DIR, before Prometheus' client is imported.
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

from housing.tracking.store import Store
from scripts.benchmarks.serving import promote_model, request_bodies
from server.api import prediction
from server.api.auth import Access
from server.core import releases
from server.metrics import mmap_files
from server.metrics.model_metrics import ModelMetrics
from server.metrics.request_metrics import StageHistogram, observe_request
from server.models.current_model import CurrentModel
from server.prediction_log.request_id import make_id_generator
from server.prediction_log.rotating_file import PREDICTIONS, RotatingFile
from server.prediction_log.writer import LOGGER_NAME, FileHandler, PredictionLog
from tests.support.commands import command
from tests.support.server import Server, scraped, serving
from tests.support.waiting import wait_for

REQUESTS = {1: 500, 1000: 10}  # at a time, by rows


TURNS = 10  # of each kind in a round: they alternate, since a machine is never quiet for long


FOREVER = 1e9  # seconds between two looks at what is published


QUEUE = 10**9  # entries: none is dropped


SCRAPES = 40


ROWS = 2000  # of a wide table


class Nothing:
    """In the place of what counts or writes: takes everything and does nothing."""

    def __init__(self, *_: Any) -> None:
        """Take what a version's counters are made of."""

    def add(self, *_: Any) -> None:
        """Count nothing."""

    def write(self, _: Any) -> None:
        """Write nothing."""

    def close(self) -> None:
        """Have nothing to end."""


def nothing(*_: Any) -> None:
    """Observe nothing."""


def main(rounds: int) -> None:
    """Print both tables."""
    mmap_files.use_process_name("0")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        matrix, columns = promote_model(home)
        sent = {rows: request_bodies(columns, matrix[:rows].tolist())["columns"] for rows in REQUESTS}
        cost(home, publish(home), sent, rounds)
    print("\n| columns | series | /metrics, kB | a scrape, ms |\n|---:|---:|---:|---:|")
    for columns_ in (8, 100):
        scrapes(columns_)


def publish(home: Path) -> Path:
    """Publish the promoted model, as the puller does."""
    with Store(f"sqlite:///{home}/mlflow.db", artifact_root=None, ui="").artifacts.bundle(
        "models:/housing-california@staging"
    ) as bundle:
        served = {"model": "housing-california", "version": "1", "alias": "staging", "mlflow": "3"}
        releases.publish(home / "published", "1-run", bundle, served)
    return home / "published"


def cost(home: Path, folder: Path, sent: dict[int, bytes], rounds: int) -> None:
    """Print what requests take without metrics and log, and what each of them adds."""
    print("| rows | neither, microseconds | metrics add | the log adds | both add |\n|---:|---:|---:|---:|---:|")
    for rows, body in sent.items():
        found = measured(home, folder, body, REQUESTS[rows], rounds)
        neither = found.pop((False, False))
        added = [statistics.median(np.subtract(each, neither)) for each in found.values()]
        print(f"| {rows} | {statistics.median(neither):.0f} | {' | '.join(f'{each:.0f}' for each in added)} |", flush=True)


def measured(home: Path, folder: Path, body: bytes, requests: int, rounds: int) -> dict[tuple[bool, bool], list[float]]:
    """Give the microseconds of a request in each turn, by whether there are metrics and a log; the first turn warms up."""
    metrics = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    counted = (
        CurrentModel(folder, FOREVER, partial(ModelMetrics, metrics, 0)),
        StageHistogram(metrics, 0).observe,
        observe_request,
    )
    not_counted = CurrentModel(folder, FOREVER, Nothing), nothing, nothing  # type: ignore[arg-type]
    found: dict[tuple[bool, bool], list[float]] = {}
    for _ in range(TURNS * rounds + 1):
        for with_metrics, with_log in ((False, False), (True, False), (False, True), (True, True)):
            in_use, stages, requests_seen = counted if with_metrics else not_counted
            with log_of(home, with_log) as log, patch.object(prediction, "observe_request", requests_seen):
                answers = prediction.PredictionApi(in_use, Access([], 0), 10_000, make_id_generator(0), log.write, stages)
                found.setdefault((with_metrics, with_log), []).append(1e6 * seconds(answers, log, body, requests))
    return {which: each[1:] for which, each in found.items()}


@contextmanager
def log_of(home: Path, is_on: bool) -> Iterator[Any]:
    """Give a prediction log that writes to a file, or one that does nothing."""
    if is_on:
        yield PredictionLog(FileHandler(RotatingFile(home / "log", f"{PREDICTIONS}-0", 10**9, 1, 1)), QUEUE)
        logging.getLogger(LOGGER_NAME).handlers.clear()
    else:
        yield Nothing()


def seconds(answers: prediction.PredictionApi, log: Any, body: bytes, requests: int) -> float:
    """Give the processor time of a request, and of what the log's thread writes for it."""
    asked = prediction.PredictionRequest("/predict", "application/json", "", None, body)
    assert answers.handle(asked).status == 200
    begun = time.process_time()
    for _ in range(requests):
        answers.handle(asked)
    log.close()
    return (time.process_time() - begun) / requests


def scrapes(columns: int) -> None:
    """Print what a scrape of two workers and two versions gives and takes."""
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
    """Declare and write a table of that many columns of numbers; give what a command needs to find it."""
    random = np.random.default_rng(0)
    names = [f"column_{place}" for place in range(columns)]
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
    ended = command(home, "housing.train", *overrides, *quick)
    assert ended.code == 0, ended.out + ended.err


def serves(server: Server, version: str) -> bool:
    """Whether all workers serve a version."""
    return {server.ask("/model").json.get("version") for _ in range(20)} == {version}


def scrape(server: Server) -> float:
    """Give the seconds that a scrape takes, the median of many."""
    took = []
    for _ in range(SCRAPES):
        begun = time.perf_counter()
        server.ask("/metrics")
        took.append(time.perf_counter() - begun)
    return statistics.median(took)


if __name__ == "__main__":
    main(int(sys.argv[1]))
