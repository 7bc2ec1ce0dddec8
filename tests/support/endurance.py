"""The server under load while versions change, workers are replaced and requests add up: what scripts/bench endurance prints."""

import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np

from housing.core.environment import PROJECT
from housing.tracking import store as tracking_store
from housing.tracking import tags as tracking_tags
from housing.tracking.store import Store
from server.prediction_log import request_id
from tests.support.commands import fresh_command
from tests.support.server import Server, serving
from tests.support.waiting import wait_for

CONNECTIONS, LASTS, EVERY = 8, 60.0, 5.0  # seconds


MODELS = ((), ("model.estimator.max_depth=4",))  # two that predict differently


TRAINED = ("model=xgboost", "features=none", "refit=false", "interval=none", "figures=false", "model.estimator.n_estimators=500")


SERVED = ("data=california", "serve.poll_seconds=1")


MILLION, WARM, CHUNK = 1_000_000, 50_000, 30  # requests, requests, seconds


@dataclass(frozen=True)
class Reply:
    """What a client was answered, and when it asked (seconds of one clock)."""

    asked: float
    took: float
    worker: int
    version: int
    prediction: float


@dataclass
class Load:
    """Clients that ask one row again and again, each over a connection that it keeps. What is not a 200 has failed."""

    url: str
    row: dict[str, Any]
    replies: list[Reply] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator["Load"]:
        """Ask for as long as the block lasts."""
        threads = [threading.Thread(target=self._ask) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self.stopping.set()
            for thread in threads:
                thread.join()

    def _ask(self) -> None:
        with closing(HTTPConnection(self.url.removeprefix("http://"), timeout=30)) as connection:
            while not self.stopping.is_set():
                try:
                    self._ask_once(connection)
                except (OSError, HTTPException) as error:
                    self.failed.append(repr(error))
                    connection.close()

    def _ask_once(self, connection: HTTPConnection) -> None:
        begun = time.perf_counter()
        connection.request("POST", "/predict", json.dumps(self.row), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content, took = answer.read(), time.perf_counter() - begun
        if answer.status != 200:
            self.failed.append(f"{answer.status} {content[:200]!r}")
            return
        said = json.loads(content)
        worker = request_id.parse_request_id(said["request_id"])[1]
        self.replies.append(Reply(begun, took, worker, int(said["version"]), said["predictions"][0]))

    @property
    def p99(self) -> float:
        """Milliseconds within which 99 of 100 requests were answered."""
        return float(np.quantile([reply.took for reply in self.replies], 0.99)) * 1000

    def wrong(self, predictions: dict[int, float]) -> int:
        """Count answers that are not what their version predicts, or of an older version than their worker gave before."""
        off = sum(abs(reply.prediction - predictions[reply.version]) > 1e-5 for reply in self.replies)
        newest: dict[int, tuple[float, int]] = {}  # by worker: since when, which
        back = 0
        for reply in sorted(self.replies, key=lambda one: one.asked + one.took):
            since, version = newest.get(reply.worker, (0.0, 0))
            if reply.version > version:
                newest[reply.worker] = (reply.asked + reply.took, reply.version)
            back += reply.version < version and reply.asked > since
        return off + back


def home_with_versions(home: Path) -> tuple[Store, list[str]]:
    """Train two models on the real table, and promote the first; give their runs."""
    (home / "data").mkdir()
    (home / "data" / "california.csv").symlink_to(PROJECT / "data" / "california.csv")
    for options in MODELS:
        ended = fresh_command(home, "housing.train", *TRAINED, *options)
        assert ended.code == 0, ended.out + ended.err
    store = tracking_store.Store(f"sqlite:///{home}/mlflow.db", artifact_root=None, ui="")
    tags = {tracking_tags.RUN_TYPE: "run"}
    runs = [
        found.id
        for found in (store.runs.find_first("california", tags, order) for order in ("metrics.rmse ASC", "metrics.rmse DESC"))
        if found
    ]
    publish(store, runs[0])
    return store, runs


def publish(store: Store, run_id: str) -> int:
    """Make a new version of a run, and move the alias to it."""
    version = store.registry.register("housing-california", run_id)
    store.registry.set_alias("housing-california", "staging", version)
    return int(version)


def swaps(store: Store, runs: list[str], running: Server, row: dict[str, Any]) -> None:
    """Print what happens to requests while a new version is published again and again."""
    with Load(running.url, row).running() as quiet:
        time.sleep(LASTS)
    predictions: dict[int, float] = {quiet.replies[0].version: quiet.replies[0].prediction}
    first = min(predictions)
    with Load(running.url, row).running() as busy:
        for turn in range(1, int(LASTS / EVERY) + 1):
            version = publish(store, runs[turn % 2])
            time.sleep(EVERY)
            predictions[version] = predictions[first] if turn % 2 == 0 else _predicted(running, row)
    seen = len({reply.version for reply in busy.replies})
    print("| | requests | failed | wrong | versions seen | p99, ms |\n|---|---:|---:|---:|---:|---:|")
    for what, load, versions in (("without swaps", quiet, 1), (f"a new version every {EVERY:g} s", busy, seen)):
        asked = len(load.replies) + len(load.failed)
        print(f"| {what} | {asked} | {len(load.failed)} | {load.wrong(predictions)} | {versions} | {load.p99:.1f} |", flush=True)
    _tell(busy)


def _predicted(running: Server, row: dict[str, Any]) -> float:
    return float(running.predict(row).json["predictions"][0])


def _tell(load: Load) -> None:
    for reason in sorted(set(load.failed))[:5]:
        print(f"failed: {reason}", file=sys.stderr, flush=True)


def restarts(running: Server, row: dict[str, Any]) -> None:
    """Print what happens to requests while all workers are replaced, as gunicorn does at SIGHUP."""
    times = 5
    with Load(running.url, row).running() as load:
        for _ in range(times):
            before = set(running.workers())
            running.process.send_signal(signal.SIGHUP)
            wait_for(partial(_all_replaced, running, before), "new workers")
            time.sleep(1.0)
    print(f"\n| {times} rolling restarts of all workers | requests | failed | p99, ms |\n|---|---:|---:|---:|")
    print(f"| | {len(load.replies) + len(load.failed)} | {len(load.failed)} | {load.p99:.1f} |", flush=True)
    _tell(load)


def _all_replaced(running: Server, before: set[int]) -> bool:
    now = set(running.workers())
    return len(now) == len(before) and not now & before


def million(home: Path, row: dict[str, Any]) -> None:
    """Print how a worker's memory grows over a million requests. Needs wrk."""
    script = home / "post.lua"
    script.write_text(
        f"wrk.method='POST'\nwrk.body='{json.dumps(row)}'\nwrk.headers['Content-Type']='application/json'\n", encoding="utf-8"
    )
    with serving(home, *SERVED, "serve.workers=1") as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        (worker,) = running.workers()
        done, begun, sizes = 0, 0.0, []
        while done < MILLION:
            arguments = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{CHUNK}s", "-s", str(script), f"{running.url}/predict"]
            said = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
            assert "Non-2xx" not in said and "Socket errors" not in said, said
            done += int(re.findall(r"(\d+) requests in", said)[0])
            sizes.append(resident(worker))
            begun = begun or (sizes[-1] if done >= WARM else 0.0)
            print(f"{done} requests, {sizes[-1]:.1f} MB", file=sys.stderr, flush=True)
        assert running.workers() == [worker]
    print(f"\n| requests | worker's memory after {WARM}, MB | at the end | growth |\n|---:|---:|---:|---:|")
    print(f"| {done} | {begun:.1f} | {sizes[-1]:.1f} | {100 * (sizes[-1] / begun - 1):.1f} % |", flush=True)


def resident(pid: int) -> float:
    """Give the memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1000


def explained(running: Server, row: dict[str, Any]) -> None:
    """Print how long an explanation takes."""
    took = []
    for _ in range(50):
        begun = time.perf_counter()
        answer = running.ask("/explain", json.dumps(row).encode())
        took.append(time.perf_counter() - begun)
        assert answer.status == 200
    print(f"\n| /explain of {len(row)} columns, ms: median | slowest of {len(took)} |\n|---:|---:|")
    print(f"| {1000 * statistics.median(took):.0f} | {1000 * max(took):.0f} |", flush=True)


def main(parts: list[str]) -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        store, runs = home_with_versions(home)
        with serving(home, *SERVED, "serve.workers=2") as running:
            wait_for(lambda: running.answers("/readyz"), "the model is published")
            row = running.ask("/model").json["example"]
            if "swaps" in parts:
                swaps(store, runs, running, row)
            if "restarts" in parts:
                restarts(running, row)
            if "explain" in parts:
                explained(running, row)
        if "million" in parts:
            million(home, row)


if __name__ == "__main__":
    main(sys.argv[1:] or ["swaps", "restarts", "explain", "million"])
