"""A running server, and requests to it."""

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
from housing.core.model_list import ModelList
from housing.promotion.promotion import promote
from housing.serving.supervisor import server_environment
from server.core.settings import Settings
from tests.support.tables import TABLES, config, orders_frame, rentals_frame, towns_frame, train
from tests.support.waiting import SECONDS, wait_for


@dataclass(frozen=True)
class Answer:
    """A response of the server."""

    status: int
    type: str
    text: str
    id: str | None = None  # X-Request-Id

    @property
    def json(self) -> Any:
        """The body as strict JSON: NaN and Infinity are errors."""
        return json.loads(self.text, parse_constant=_reject_constant)


def _reject_constant(name: str) -> None:
    raise AssertionError(f"the response contains {name}")


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def ask(self, route: str, body: bytes | None = None, method: str | None = None, **headers: str) -> Answer:
        """Send a request. The body is JSON unless a header sets another content type."""
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
        """Request predictions."""
        return self.ask("/predict", json.dumps(body).encode())

    def answers(self, route: str) -> bool:
        """Return whether the route responds with status 200."""
        try:
            return self.ask(route).status == 200
        except OSError:
            return False

    def workers(self) -> list[int]:
        """Return the pids of gunicorn's workers. The puller also has child processes at times."""
        return [worker for master in children_running(self.process.pid, "gunicorn") for worker in children(master)]


def assert_problem(answer: Answer, status: int, detail: str) -> None:
    """Check the status and detail of an RFC 9457 problem, the format of every error."""
    assert (answer.status, answer.type) == (status, "application/problem+json"), answer
    body = answer.json
    assert set(body) - {"errors"} == {"type", "title", "status", "detail"}
    assert body["status"] == status
    assert re.search(detail, body["detail"]), body


def children(pid: int) -> list[int]:
    """Return the pids of a process's children. A process that has ended has none."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def children_running(pid: int, name: str) -> list[int]:
    """Return the pids of a process's children that have this text in their command line."""
    return [child for child in children(pid) if name.encode() in _command_line(child)]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):  # it has ended since its parent was asked
        return b""


def scraped(server: Server) -> dict[str, float]:
    """Return the metrics by name and labels."""
    lines = (line for line in server.ask("/metrics").text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def new_key(name: str, rights: str, *models: str) -> tuple[str, str]:
    """Create an API key as an operator does. Return the key and its line in the keys file."""
    process = subprocess.run(
        [sys.executable, "-m", "server.access", name, rights, *models], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    _, key, _, line = process.stdout.splitlines()
    return key.strip(), line.strip()


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def serving(home_: Path, *overrides: str, environment: Mapping[str, str] | None = None, url: str = "") -> Iterator[Server]:
    """Run a server with real gunicorn workers and a real puller. The default table is rentals."""
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
        wait_for(lambda: server.answers("/healthz") and len(server.workers()) == workers, "the server is live")
        yield server
    finally:
        process.terminate()
        process.wait(SECONDS)


def model_list(folder: Path, model: str = "m") -> ModelList:
    """Return the list of a server of one model, at alias staging, with its release folder."""
    overrides = (f"serve.release_dir={folder}", f"serve.model={model}")
    return Settings.from_environment(server_environment(config("serve", *overrides).serve)).list_models()


@contextmanager
def gunicorn_alone(python: str, log: Path, **environment: str) -> Iterator[Server]:
    """Workers without a puller, from any Python, on what is published already."""
    port = free_port()
    serve = config("serve", "data=rentals", f"serve.port={port}").serve
    settings = {f"HOUSING_{str(name).upper()}": str(value) for name, value in serve.items()}
    environ = {**settings, "PROMETHEUS_MULTIPROC_DIR": f"{log}.metrics", **environment}
    arguments = [python, "-m", "gunicorn", "--config", "server/gunicorn.conf.py"]
    with log.open("wb") as file:
        process = subprocess.Popen(arguments, cwd=PROJECT, env=environ, stdout=file, stderr=file)
    running = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        wait_for(lambda: running.answers("/readyz"), "the workers are ready")
        yield running
    finally:
        process.terminate()
        process.wait(60)


def promoted(directory: Path, table: str, empty_store_: Path) -> Path:
    """Create a home with a small promoted model of rentals, towns or orders, with intervals."""
    frame = {"rentals": rentals_frame, "towns": towns_frame, "orders": orders_frame}[table]()
    (directory / "data").mkdir()
    frame.to_csv(directory / "data" / f"{table}.csv", index=False)
    shutil.copy(empty_store_, directory / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOUSING_HOME", str(directory))
        train(directory, f"data={table}", "figures=false", "model.estimator.n_estimators=50", "model.estimator.learning_rate=0.2")
        assert promote(config("promote", f"data={table}")).verdict == "PROMOTE"
    return directory
