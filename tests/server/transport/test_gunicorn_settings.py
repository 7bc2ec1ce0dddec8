"""Settings of gunicorn that operators may pass, and limits of the system."""

import json
import socket
import subprocess
import sys
from contextlib import closing
from http.client import HTTPResponse
from pathlib import Path

import pytest

from housing.core.environment import PROJECT
from housing.serving.supervisor import server_environment
from tests.support.raw_client import request
from tests.support.server import free_port, serving
from tests.support.tables import FLAT, config
from tests.support.waiting import wait_for

LIMITS = """
import resource, runpy
settings = runpy.run_path("server/gunicorn.conf.py")
print(settings["worker_connections"], *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_a_unix_socket_an_access_log_and_a_limit_of_requests_work(served_home: Path, tmp_path: Path) -> None:
    port, path, log = free_port(), tmp_path / "socket", tmp_path / "access.log"
    arguments = f"--bind=127.0.0.1:{port} --bind=unix:{path} --access-logfile={log} --max-requests=20"
    environment, url = {"GUNICORN_CMD_ARGS": arguments}, f"http://127.0.0.1:{port}"
    with serving(served_home, "serve.workers=1", f"serve.port={port}", environment=environment, url=url) as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        first = running.workers()
        for number in range(21):
            with socket.socket(socket.AF_UNIX) as connection, closing(HTTPResponse(connection)) as response:
                connection.connect(str(path))
                connection.sendall(
                    request(json.dumps(FLAT).encode(), fields=f"Content-Type: application/json\r\nX-N: {number}\r\n")
                )
                response.begin()
                assert response.status == 200
        wait_for(lambda: len(running.workers()) == 1 and running.workers() != first, "another worker takes over")
        wait_for(lambda: running.predict(FLAT).status == 200, "it answers")
    assert log.read_text(encoding="utf-8").count('"POST /predict HTTP/1.1" 200') >= 22


@pytest.mark.parametrize("setting", ["--certfile=setup.cfg", "--proxy-protocol"])
def test_settings_that_the_worker_does_not_support_end_the_start(tmp_path: Path, setting: str) -> None:
    environment = server_environment(config("serve", "data=rentals").serve) | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    arguments = [sys.executable, "-m", "gunicorn", "--config", "server/gunicorn.conf.py", setting]
    process = subprocess.run(arguments, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert process.returncode == 1
    assert "error: TLS and the PROXY protocol need gunicorn's own worker" in process.stderr


@pytest.mark.parametrize(
    ("limits", "result", "warning"),
    [
        ("ulimit -Sn 256", "5000 5200 ", ""),
        ("ulimit -n 1000", "800 1000 1000", "WARNING: this process may open only 1000 files, so each worker holds at most 800"),
    ],
)
def test_the_limit_of_open_files_is_raised_as_far_as_possible(limits: str, result: str, warning: str) -> None:
    environment = server_environment(config("serve", "data=rentals").serve)
    arguments = ["bash", "-c", f'{limits}; exec "$@"', "bash", sys.executable, "-c", LIMITS]
    process = subprocess.run(arguments, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True)
    assert process.stdout.startswith(result)
    assert warning in process.stderr and bool(warning) == ("WARNING" in process.stderr)
