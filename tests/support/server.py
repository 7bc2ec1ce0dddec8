"""TODO docstring."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from housing.core.environment import PROJECT
from housing.promotion.promotion import promote
from tests.support.tables import TABLES, config, rentals_frame, towns_frame, train
from tests.support.waiting import SECONDS, wait_for


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    type: str
    text: str
    id: str | None = None  # of the request, as its header tells

    @property
    def json(self) -> Any:
        """The body as JSON; NaN and the like are refused, as a strict caller does."""
        return json.loads(self.text, parse_constant=_refuse)


def _refuse(name: str) -> None:
    raise AssertionError(f"the answer holds {name}")


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def ask(self, route: str, body: bytes | None = None, method: str | None = None, **headers: str) -> Answer:
        """Send bytes (JSON, unless a header says otherwise), or just ask."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"{self.url}{route}", body, {"Content-Type": "application/json", **named}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return Answer(
                    answer.status, answer.headers["Content-Type"], answer.read().decode(), answer.headers["X-Request-Id"]
                )
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.headers["Content-Type"], error.read().decode())

    def predict(self, body: object) -> Answer:
        """Ask for predictions."""
        return self.ask("/predict", json.dumps(body).encode())

    def answers(self, route: str) -> bool:
        """Whether the route answers with 200."""
        try:
            return self.ask(route).status == 200
        except OSError:
            return False

    def workers(self) -> list[int]:
        """The pids of gunicorn's workers; the puller has children too, now and then."""
        masters = [pid for pid in children(self.process.pid) if b"gunicorn" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return [worker for master in masters for worker in children(master)]


def assert_problem(answer: Answer, status: int, detail: str) -> None:
    """Every error has one shape."""
    assert (answer.status, answer.type) == (status, "application/problem+json"), answer
    body = answer.json
    assert set(body) - {"errors"} == {"type", "title", "status", "detail"}
    assert body["status"] == status
    assert re.search(detail, body["detail"]), body


def children(pid: int) -> list[int]:
    """The pids of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]


def scraped(server: Server) -> dict[str, float]:
    """The metrics by name and labels."""
    lines = (line for line in server.ask("/metrics").text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def new_key(name: str, rights: str) -> tuple[str, str]:
    """Make a key as an operator does; give it and its line."""
    made = subprocess.run(
        [sys.executable, "-m", "server.access", name, rights], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    _, key, _, line = made.stdout.splitlines()
    return key.strip(), line.strip()


def free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port: int = place.getsockname()[1]
        return port


@contextmanager
def serving(home_: Path, *overrides: str, environment: Mapping[str, str] | None = None, url: str = "") -> Iterator[Server]:
    """Serve the rentals with real gunicorn workers and a real puller for as long as the block lasts."""
    port, log = free_port(), home_ / "serve.log"
    chosen = ["data=rentals", f"serve.port={port}", "serve.poll_seconds=0.1", "serve.drain_seconds=0", *overrides]
    arguments = [f"hydra.searchpath=[file://{TABLES}]", *chosen]
    workers = config("serve", *chosen).serve.workers
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "housing.serve", *arguments],
            env={**os.environ, "HOUSING_HOME": str(home_), **(environment or {})},
            stdout=file,
            stderr=file,
        )
    server = Server(url or f"http://127.0.0.1:{port}", process, log)
    try:
        wait_for(lambda: server.answers("/healthz") and len(server.workers()) == workers, "the server lives")
        yield server
    finally:
        process.terminate()
        process.wait(SECONDS)


def promoted(place: Path, table: str, empty_store_: Path) -> Path:
    """Make a home with a small promoted model of rentals or towns, with intervals."""
    frame = {"rentals": rentals_frame, "towns": towns_frame}[table]()
    (place / "data").mkdir()
    frame.to_csv(place / "data" / f"{table}.csv", index=False)
    shutil.copy(empty_store_, place / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOUSING_HOME", str(place))
        train(place, f"data={table}", "figures=false", "model.estimator.n_estimators=50", "model.estimator.learning_rate=0.2")
        assert promote(config("promote", f"data={table}")).verdict == "PROMOTE"
    return place
