"""A real Docker engine: images built by scripts/image, containers that this machine reaches by their own addresses."""

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from housing.core.environment import PROJECT

VERSION = "tests"


NOT_OF_THE_CLONE = (
    ".venv",
    ".git",
    ".env",
    ".docker-engine",
    "outputs",
    "serving",
    "mlartifacts",
    "mlflow.db*",
    "*_cache",
    "__pycache__",
)


CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def missing() -> str:
    """Give what this machine lacks for images, or nothing."""
    if shutil.which("docker") is None:
        return "not installed: docker"
    asked = subprocess.run(["docker", "info"], capture_output=True, check=False)
    return "" if asked.returncode == 0 else "no Docker engine answers; DOCKER_HOST says where it is"


def docker(*arguments: str, check: bool = True) -> str:
    """Run docker, and give what it prints."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return (done.stdout + (done.stderr if not check else "")).strip()


def clone(place: Path) -> Path:
    """Make a copy of the project, in which a test may leave what it likes."""
    shutil.copytree(PROJECT, place, ignore=shutil.ignore_patterns(*NOT_OF_THE_CLONE))
    return place


def build(place: Path, *targets: str, **variables: str) -> None:
    """Build images of a clone, with this machine's certificates, under the tag of the tests."""
    certificates = {"CA": str(CERTIFICATES)} if CERTIFICATES.exists() else {}
    environ = {**os.environ, "VERSION": VERSION, "NETWORK": "host", **certificates, **variables}
    done = subprocess.run(
        ["./scripts/image", *targets], cwd=place, env=environ, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-9000:]


def inspect(container: str, path: str) -> str:
    """Give one thing that the engine knows of a container, `.State.Health.Status`."""
    return docker("inspect", "--format", f"{{{{{path}}}}}", container)


def address(container: str) -> str:
    """Give an address at which this machine reaches a container."""
    networks = json.loads(docker("inspect", "--format", "{{json .NetworkSettings.Networks}}", container))
    found: str = next(network["IPAddress"] for network in networks.values() if network["IPAddress"])
    return found


def within(container: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a container."""
    return subprocess.run(["docker", "exec", container, *command], capture_output=True, text=True, check=False)


def child_of(container: str) -> int:
    """Give the pid, on this machine, of the process that a container's init has started."""
    init = int(inspect(container, ".State.Pid"))
    children: Sequence[str] = Path(f"/proc/{init}/task/{init}/children").read_text(encoding="utf-8").split()
    return int(children[0])


@dataclass
class Seen:
    """What callers saw who asked again and again."""

    asked: int = 0
    failed: list[str] = field(default_factory=list)


@contextmanager
def callers(host: str, row: object, stay: bool, count: int = 4) -> Iterator[Seen]:
    """Ask port 8000 for predictions for as long as the block lasts, on connections that stay or each time on a new one."""
    seen, stop, body = Seen(), threading.Event(), json.dumps(row)

    def ask() -> None:
        connection = HTTPConnection(host, 8000, timeout=30)
        while not stop.is_set():
            seen.asked += 1
            try:
                connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                seen.failed += [] if answer.status == 200 else [str(answer.status)]
            except (OSError, HTTPException) as error:
                seen.failed.append(repr(error))
                connection.close()
            if not stay:
                connection.close()
            time.sleep(0.005)
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()
