"""A real Docker engine: images built by scripts/image, and containers reached by their own addresses."""

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
EXCLUDED_FROM_CLONE = (
    ".venv",
    ".git",
    ".env",
    ".docker-engine",
    "outputs",
    "mlartifacts",
    "mlflow.db*",
    "*_cache",
    "__pycache__",
)
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def missing() -> str:
    """Return why this machine cannot build images, or an empty string."""
    if shutil.which("docker") is None:
        return "not installed: docker"
    process = subprocess.run(["docker", "info"], capture_output=True, check=False)
    return "" if process.returncode == 0 else "no Docker engine responds; set DOCKER_HOST to its address"


def docker(*arguments: str, check: bool = True) -> str:
    """Run docker and return its output."""
    process = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert not check or process.returncode == 0, f"docker {' '.join(arguments)}: {process.stderr}"
    return (process.stdout + (process.stderr if not check else "")).strip()


def clone(directory: Path) -> Path:
    """Copy the project, so that a test may change files."""
    shutil.copytree(PROJECT, directory, ignore=shutil.ignore_patterns(*EXCLUDED_FROM_CLONE))
    return directory


def build(directory: Path, *targets: str, **variables: str) -> None:
    """Build images from a clone, with this machine's certificates and the tests' tag."""
    certificates = {"CA": str(CERTIFICATES)} if CERTIFICATES.exists() else {}
    environ = {**os.environ, "VERSION": VERSION, "NETWORK": "host", **certificates, **variables}
    process = subprocess.run(
        ["./scripts/image", *targets], cwd=directory, env=environ, capture_output=True, text=True, timeout=600, check=False
    )
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-9000:]


def inspect(container: str, path: str) -> str:
    """Return a property of a container, such as `.State.Health.Status`."""
    return docker("inspect", "--format", f"{{{{{path}}}}}", container)


def address(container: str) -> str:
    """Return an address at which this machine reaches a container."""
    networks = json.loads(docker("inspect", "--format", "{{json .NetworkSettings.Networks}}", container))
    ip_address: str = next(network["IPAddress"] for network in networks.values() if network["IPAddress"])
    return ip_address


def within(container: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a container."""
    return subprocess.run(["docker", "exec", container, *command], capture_output=True, text=True, check=False)


def child_of(container: str) -> int:
    """Return the host pid of the process that a container's init has started."""
    init = int(inspect(container, ".State.Pid"))
    children: Sequence[str] = Path(f"/proc/{init}/task/{init}/children").read_text(encoding="utf-8").split()
    return int(children[0])


@dataclass
class CallerResults:
    """The number of requests that callers sent, and the failures."""

    requests: int = 0
    failed: list[str] = field(default_factory=list)


@contextmanager
def callers(host: str, row: object, keep_alive: bool, count: int = 4, port: int = 8000, key: str = "") -> Iterator[CallerResults]:
    """Request predictions during the block, on persistent connections or on a new one per request."""
    results, stop, body = CallerResults(), threading.Event(), json.dumps(row)
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}

    def call() -> None:
        connection = HTTPConnection(host, port, timeout=30)
        while not stop.is_set():
            results.requests += 1
            try:
                connection.request("POST", "/predict", body, headers)
                response = connection.getresponse()
                response.read()
                results.failed += [] if response.status == 200 else [str(response.status)]
            except (OSError, HTTPException) as error:
                results.failed.append(repr(error))
                connection.close()
            if not keep_alive:
                connection.close()
            time.sleep(0.005)
        connection.close()

    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield results
    finally:
        stop.set()
        for thread in threads:
            thread.join()
