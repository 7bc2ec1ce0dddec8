"""The last proof before an alias moves: a server of its own is started with the bundle, and answers the golden rows."""

import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from housing.bundle.bundle import Bundle
from housing.core.environment import PROJECT
from housing.core.errors import BundleError
from housing.core.http import NO_PROXY_OPENER
from housing.schema.column import Vector
from server.core import releases
from server.supervisor import GUNICORN, server_environment

# The server ends with this process, however that ends: then nobody holds the other end of its standard input any more.
TIED_SCRIPT = 'exec 3<&0; "$@" & server=$!; { read -r _; kill $server; } <&3 2>/dev/null & wait $server'


POLL_SECONDS = 0.1  # seconds between two looks


REQUEST_TIMEOUT = 10  # for an answer


def run_smoke_test(serve: Mapping[str, Any], bundle: Bundle, folder: Path, timeout: float) -> None:
    """Have a real server answer a bundle's golden rows. `folder` is where the bundle lies.

    Raises BundleError where it is not ready within `seconds`, refuses a row, or predicts something else.
    """
    with tempfile.TemporaryDirectory(prefix="housing-rehearsal-") as place:
        releases.publish(Path(place) / "published", "rehearsal", folder, {"model": "rehearsal", "version": "0", "alias": ""})
        with _running_server(serve, Path(place)) as (url, process, log):
            _wait_until_ready(url, process, log, timeout)
            bundle.verify_predictions(_predict_golden_rows(url, bundle, log))


@contextmanager
def _running_server(serve: Mapping[str, Any], directory: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]", Path]]:
    """Serve what is published in `place`, on a free port of this machine, for nobody else."""
    port, log, metrics = _free_port(), directory / "log", directory / "metrics"
    metrics.mkdir()
    own = {
        "host": "127.0.0.1",
        "port": port,
        "metrics_port": 0,
        "workers": 1,
        "drain_seconds": 0,
        "keys_file": "",
        "rate_limit": 0,
    }
    settings = {**serve, **own, "release_dir": str(directory / "published"), "log_dir": str(directory / "predictions")}
    environ = {**server_environment(settings), "PROMETHEUS_MULTIPROC_DIR": str(metrics), "HOUSING_KEYS": ""}
    command = ["sh", "-c", TIED_SCRIPT, "sh", sys.executable, *GUNICORN]
    with (
        log.open("wb") as file,
        subprocess.Popen(command, env=environ, cwd=PROJECT, stdin=subprocess.PIPE, stdout=file, stderr=file) as process,
    ):
        yield f"http://127.0.0.1:{port}", process, log  # leaving closes its standard input, and waits for its end


def _free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path, timeout: float) -> None:
    end = time.monotonic() + timeout
    while not _is_ready(url):
        if process.poll() is not None:
            raise BundleError(f"no server starts with it: {_last_log_line(log)}")
        if time.monotonic() > end:
            raise BundleError(f"a server with it is not ready within {timeout:g} s: {_last_log_line(log)}")
        time.sleep(POLL_SECONDS)


def _is_ready(url: str) -> bool:
    try:
        with NO_PROXY_OPENER.open(f"{url}/readyz", timeout=REQUEST_TIMEOUT):
            return True
    except OSError:
        return False


def _predict_golden_rows(url: str, bundle: Bundle, log: Path) -> Vector:
    body = json.dumps({"instances": bundle.golden["rows"]}).encode()
    try:
        request = urllib.request.Request(f"{url}/predict", body, {"Content-Type": "application/json"})
        with NO_PROXY_OPENER.open(request, timeout=REQUEST_TIMEOUT) as answer:
            return np.array(json.load(answer)["predictions"], dtype=np.float64)
    except urllib.error.HTTPError as error:
        raise BundleError(f"a server with it refuses the golden rows: {error.code} {error.read(500).decode()}") from error
    except OSError as error:
        raise BundleError(f"a server with it does not answer the golden rows: {error}; {_last_log_line(log)}") from error


def _last_log_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
