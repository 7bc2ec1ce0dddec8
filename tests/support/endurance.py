"""The server under load during model swaps and rolling restarts, and over a million requests: scripts/bench endurance."""

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
from housing.server_files import request_id
from housing.tracking import store as tracking_store
from housing.tracking import tags as tracking_tags
from housing.tracking.store import Store
from tests.support.background_threads import running_threads
from tests.support.commands import fresh_command
from tests.support.server import Server, serving
from tests.support.waiting import wait_for

CONNECTIONS, DURATION, SWAP_INTERVAL = 8, 60.0, 5.0  # seconds


MODELS = ((), ("model.estimator.max_depth=4",))  # two models with different predictions


TRAINED = ("model=xgboost", "features=none", "refit=false", "interval=none", "figures=false", "model.estimator.n_estimators=500")


SERVED = ("data=california", "serve.poll_seconds=1")


MILLION, WARM_UP, CHUNK = 1_000_000, 50_000, 30  # requests, requests, seconds


@dataclass(frozen=True)
class Reply:
    """A prediction, and the start and duration of its request in seconds of the same clock."""

    started: float
    seconds: float
    worker: int
    version: int
    prediction: float


@dataclass
class Load:
    """Clients that repeat the same request on persistent connections. Every status but 200 is a failure."""

    url: str
    row: dict[str, Any]
    replies: list[Reply] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator["Load"]:
        """Send requests during the block."""
        threads = [threading.Thread(target=self._send_requests) for _ in range(CONNECTIONS)]
        with running_threads(threads, self.stopping):
            yield self

    def _send_requests(self) -> None:
        with closing(HTTPConnection(self.url.removeprefix("http://"), timeout=30)) as connection:
            while not self.stopping.is_set():
                try:
                    self._send_request(connection)
                except (OSError, HTTPException) as error:
                    self.failed.append(repr(error))
                    connection.close()

    def _send_request(self, connection: HTTPConnection) -> None:
        started = time.perf_counter()
        connection.request("POST", "/predict", json.dumps(self.row), {"Content-Type": "application/json"})
        response = connection.getresponse()
        content, seconds = response.read(), time.perf_counter() - started
        if response.status != 200:
            self.failed.append(f"{response.status} {content[:200]!r}")
            return
        body_ = json.loads(content)
        worker = request_id.parse_request_id(body_["request_id"])[1]
        self.replies.append(Reply(started, seconds, worker, int(body_["version"]), body_["predictions"][0]))

    @property
    def p99(self) -> float:
        """The 99th percentile of the latency in milliseconds."""
        return float(np.quantile([reply.seconds for reply in self.replies], 0.99)) * 1000

    def wrong(self, predictions: dict[int, float]) -> int:
        """Count wrong predictions, and responses of an older version than the same worker served before."""
        off = sum(abs(reply.prediction - predictions[reply.version]) > 1e-5 for reply in self.replies)
        newest: dict[int, tuple[float, int]] = {}  # by worker: the time and the version of its newest response
        back = 0
        for reply in sorted(self.replies, key=lambda reply_: reply_.started + reply_.seconds):
            since, version = newest.get(reply.worker, (0.0, 0))
            if reply.version > version:
                newest[reply.worker] = (reply.started + reply.seconds, reply.version)
            back += reply.version < version and reply.started > since
        return off + back


def home_with_versions(home: Path) -> tuple[Store, list[str]]:
    """Train two models on the real table and promote the first. Return the store and both run ids."""
    (home / "data").mkdir()
    (home / "data" / "california.csv").symlink_to(PROJECT / "data" / "california.csv")
    for options in MODELS:
        result = fresh_command(home, "housing.train", *TRAINED, *options)
        assert result.code == 0, result.out + result.err
    store = tracking_store.Store(f"sqlite:///{home}/mlflow.db", artifact_root=None, ui="")
    tags = {tracking_tags.RUN_TYPE: "run"}
    runs = [
        run_.id
        for run_ in (store.runs.find_first("california", tags, order) for order in ("metrics.rmse ASC", "metrics.rmse DESC"))
        if run_
    ]
    publish(store, runs[0])
    return store, runs


def publish(store: Store, run_id: str) -> int:
    """Register a run as a new version and move the alias to it."""
    version = store.registry.register("housing-california", run_id)
    store.registry.set_alias("housing-california", "staging", version)
    return int(version)


def swaps(store: Store, runs: list[str], running: Server, row: dict[str, Any]) -> None:
    """Print failures and latency while new versions are published at a fixed interval."""
    with Load(running.url, row).running() as quiet:
        time.sleep(DURATION)
    predictions: dict[int, float] = {quiet.replies[0].version: quiet.replies[0].prediction}
    first = min(predictions)
    with Load(running.url, row).running() as busy:
        for turn in range(1, int(DURATION / SWAP_INTERVAL) + 1):
            version = publish(store, runs[turn % 2])
            time.sleep(SWAP_INTERVAL)
            predictions[version] = predictions[first] if turn % 2 == 0 else _predicted(running, row)
    versions_seen = len({reply.version for reply in busy.replies})
    print("| | requests | failed | wrong | versions seen | p99, ms |\n|---|---:|---:|---:|---:|---:|")
    for label, load, versions in (("without swaps", quiet, 1), (f"a new version every {SWAP_INTERVAL:g} s", busy, versions_seen)):
        requests = len(load.replies) + len(load.failed)
        print(
            f"| {label} | {requests} | {len(load.failed)} | {load.wrong(predictions)} | {versions} | {load.p99:.1f} |", flush=True
        )
    _print_failures(busy)


def _predicted(running: Server, row: dict[str, Any]) -> float:
    return float(running.predict(row).json["predictions"][0])


def _print_failures(load: Load) -> None:
    for reason in sorted(set(load.failed))[:5]:
        print(f"failed: {reason}", file=sys.stderr, flush=True)


def restarts(running: Server, row: dict[str, Any]) -> None:
    """Print failures and latency while gunicorn replaces all workers after SIGHUP."""
    times = 5
    with Load(running.url, row).running() as load:
        for _ in range(times):
            before = set(running.workers())
            running.process.send_signal(signal.SIGHUP)
            wait_for(partial(_all_replaced, running, before), "new workers")
            time.sleep(1.0)
    print(f"\n| {times} rolling restarts of all workers | requests | failed | p99, ms |\n|---|---:|---:|---:|")
    print(f"| | {len(load.replies) + len(load.failed)} | {len(load.failed)} | {load.p99:.1f} |", flush=True)
    _print_failures(load)


def _all_replaced(running: Server, before: set[int]) -> bool:
    now = set(running.workers())
    return len(now) == len(before) and not now & before


def million(home: Path, row: dict[str, Any]) -> None:
    """Print the growth of a worker's memory over a million requests. Requires wrk."""
    script = home / "post.lua"
    script.write_text(
        f"wrk.method='POST'\nwrk.body='{json.dumps(row)}'\nwrk.headers['Content-Type']='application/json'\n", encoding="utf-8"
    )
    with serving(home, *SERVED, "serve.workers=1") as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        (worker,) = running.workers()
        done, warm_size, sizes = 0, 0.0, []
        while done < MILLION:
            arguments = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{CHUNK}s", "-s", str(script), f"{running.url}/predict"]
            body_ = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
            assert "Non-2xx" not in body_ and "Socket errors" not in body_, body_
            done += int(re.findall(r"(\d+) requests in", body_)[0])
            sizes.append(resident(worker))
            warm_size = warm_size or (sizes[-1] if done >= WARM_UP else 0.0)
            print(f"{done} requests, {sizes[-1]:.1f} MB", file=sys.stderr, flush=True)
        assert running.workers() == [worker]
    print(f"\n| requests | worker's memory after {WARM_UP}, MB | at the end | growth |\n|---:|---:|---:|---:|")
    print(f"| {done} | {warm_size:.1f} | {sizes[-1]:.1f} | {100 * (sizes[-1] / warm_size - 1):.1f} % |", flush=True)


def resident(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1000


def explained(running: Server, row: dict[str, Any]) -> None:
    """Print the latency of explanations."""
    durations = []
    for _ in range(50):
        started = time.perf_counter()
        response = running.ask("/explain", json.dumps(row).encode())
        durations.append(time.perf_counter() - started)
        assert response.status == 200
    print(f"\n| /explain of {len(row)} columns, ms: median | slowest of {len(durations)} |\n|---:|---:|")
    print(f"| {1000 * statistics.median(durations):.0f} | {1000 * max(durations):.0f} |", flush=True)


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
