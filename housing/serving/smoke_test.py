"""The smoke test of a promotion: a real server with the candidate bundle must predict its golden rows."""

import json
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from housing.bundle.bundle import Bundle
from housing.core.environment import PROJECT
from housing.core.errors import BundleError, SmokeTestTimeout
from housing.core.http import NO_PROXY_OPENER
from housing.schema.column import Vector
from housing.serving import publishing
from housing.serving.readiness import REQUEST_TIMEOUT_SECONDS, free_port, last_lines, wait_until_ready
from housing.serving.supervisor import GUNICORN, Process, server_environment

# Stops the server when this process exits, even by SIGKILL: its standard input then reaches its end.
TIED_SCRIPT = 'exec 3<&0; "$@" & server=$!; { read -r _; kill $server; } <&3 2>/dev/null & wait $server'
PRIVATE_SETTINGS = {
    "host": "127.0.0.1",
    "metrics_port": 0,
    "workers": 1,
    "drain_seconds": 0,
    "models": "",
    "max_memory_mb": 0,
    "keys_file": "",
    "rate_limit": 0,
    "trusted_keys": "",  # the version is signed once it has passed
}


def run_smoke_test(serve: Mapping[str, object], bundle: Bundle, folder: Path, timeout: float) -> None:
    """Start a server with the bundle in `folder` and compare its predictions of the golden rows.

    Raises
    ------
    BundleError
        If the server stops, rejects a row or predicts another value.
    SmokeTestTimeout
        If the server is not ready within `timeout` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="housing-smoke-test-") as scratch:
        info = {"model": "smoke-test", "version": "0", "alias": ""}
        publishing.publish(Path(scratch) / "published", "smoke-test", folder, info)
        with _running_server(serve, Path(scratch)) as (url, process, log):
            _require_ready(url, process, log, timeout)
            bundle.verify_predictions(_predict_golden_rows(url, bundle, log))


@contextmanager
def _running_server(serve: Mapping[str, object], directory: Path) -> Iterator[tuple[str, Process, Path]]:
    """Serve the release in `directory` on a free local port. Yield the URL, the process and the log file."""
    port, log, metrics = free_port(), directory / "log", directory / "metrics"
    metrics.mkdir()
    folders = {"release_dir": directory / "published", "log_dir": directory / "predictions"}
    settings = server_environment({**serve, **PRIVATE_SETTINGS, **folders, "port": port})
    environ = {**settings, "PROMETHEUS_MULTIPROC_DIR": str(metrics), "HOUSING_KEYS": "", "OTEL_SDK_DISABLED": "true"}
    command = ["sh", "-c", TIED_SCRIPT, "sh", sys.executable, *GUNICORN]
    with (
        log.open("wb") as file,
        subprocess.Popen(command, env=environ, cwd=PROJECT, stdin=subprocess.PIPE, stdout=file, stderr=file) as process,
    ):
        yield f"http://127.0.0.1:{port}", process, log  # on exit, Popen closes standard input and waits


def _require_ready(url: str, process: Process, log: Path, timeout: float) -> None:
    if wait_until_ready(url, process, timeout):
        return
    if process.poll() is not None:
        raise BundleError(f"The smoke test failed: the server did not start. Its last log line: {last_lines(log)}")
    raise SmokeTestTimeout(
        f"The smoke test timed out: the server was not ready within {timeout:g} s. The model was not judged."
        f" Run the same command again, or raise gate.smoke_test_seconds. Its last log line: {last_lines(log)}"
    )


def _predict_golden_rows(url: str, bundle: Bundle, log: Path) -> Vector:
    body = json.dumps({"instances": bundle.golden["rows"]}).encode()
    try:
        request = urllib.request.Request(f"{url}/predict", body, {"Content-Type": "application/json"})
        with NO_PROXY_OPENER.open(request, timeout=REQUEST_TIMEOUT_SECONDS) as response:
            return np.array(json.load(response)["predictions"], dtype=np.float64)
    except urllib.error.HTTPError as error:
        reason = error.read(500).decode()
        raise BundleError(f"The smoke test failed: the server rejected the golden rows ({error.code}): {reason}") from error
    except OSError as error:
        raise BundleError(
            f"The smoke test failed: no response for the golden rows ({error}). Its last log line: {last_lines(log)}"
        ) from error
