"""scripts/alert_hook: the dispatches to GitHub, their rate limit and authentication. A small HTTP server stands in for GitHub."""

import json
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from housing.core.environment import PROJECT
from tests.support.server import free_port
from tests.support.waiting import wait_for

SECRET, TOKEN = "sixteen letters and more", "a token"
ALERT = {"status": "firing", "groupKey": '{}:{alertname="Drift"}', "alerts": [{"labels": {"alertname": "HousingColumnDrift"}}]}


class GitHub(HTTPServer):
    """A stand-in for GitHub's API that records every dispatch and responds with `status`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), DispatchHandler)
        self.dispatches: list[tuple[str, str | None, Any]] = []
        self.status = 204


class DispatchHandler(BaseHTTPRequestHandler):
    """A request to GitHub's API."""

    server: GitHub

    def do_POST(self) -> None:  # pylint: disable=invalid-name  # http.server wants this name
        """Record the dispatch."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.dispatches.append((self.path, self.headers["Authorization"], body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:  # pylint: disable=arguments-differ  # unused
        """Log nothing."""


@pytest.fixture
def github() -> Iterator[GitHub]:
    """A running stand-in for GitHub's API."""
    server = GitHub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def hook(github: GitHub, pause: float = 3600) -> Iterator[str]:
    """Run the receiver and yield its URL."""
    port = free_port()
    environ = {"GITHUB_TOKEN": TOKEN, "ALERT_HOOK_SECRET": SECRET, "ALERT_HOOK_PAUSE": str(pause)}
    environ["GITHUB_API_URL"] = f"http://127.0.0.1:{github.server_port}"
    command = [sys.executable, "scripts/alert_hook", "someone/housing", str(port)]
    with subprocess.Popen(command, cwd=PROJECT, env={**os.environ, **environ}, stdout=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(lambda: send(url, b"", secret="unknown") == 401, "the receiver responds")
            yield url
        finally:
            process.terminate()


def send(url: str, body: bytes | dict[str, Any], secret: str = SECRET) -> int:
    """Send a message as Alertmanager does. Return the status of the response, or 0 without one."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, data, {"Authorization": f"Bearer {secret}"}), timeout=20
        ) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def test_each_group_of_alerts_is_dispatched_once_until_the_pause_ends(github: GitHub) -> None:
    with hook(github) as url:
        assert [send(url, ALERT), send(url, ALERT), send(url, {**ALERT, "groupKey": "another"})] == [202, 200, 202]
    path, authorization, body = github.dispatches[0]
    assert (path, authorization) == ("/repos/someone/housing/dispatches", f"Bearer {TOKEN}")
    assert body == {"event_type": "drift", "client_payload": {"group": ALERT["groupKey"], "alerts": ["HousingColumnDrift"]}}
    assert len(github.dispatches) == 2
    with hook(github, pause=0) as url:
        assert [send(url, ALERT), send(url, ALERT)] == [202, 202]


def test_only_authenticated_firing_drift_alerts_are_dispatched(github: GitHub) -> None:
    with hook(github) as url:
        assert send(url, ALERT, secret="sixteen letters and less") == 401
        assert send(url, {**ALERT, "status": "resolved"}) == 200
        assert send(url, {**ALERT, "alerts": [{"labels": {"alertname": "HousingDown"}}]}) == 200
        assert [send(url, b"{"), send(url, b"[]"), send(url, {"status": "firing"})] == [400, 400, 400]
        assert send(url, b" " * 1_000_001) in (413, 0)  # the receiver may close the connection before the body is sent
    assert not github.dispatches


def test_a_dispatch_that_github_rejects_is_retried(github: GitHub) -> None:
    with hook(github) as url:
        github.status = 503
        assert send(url, ALERT) == 502
        github.status = 204
        assert send(url, ALERT) == 202


@pytest.mark.parametrize(("name", "value"), [("GITHUB_TOKEN", ""), ("ALERT_HOOK_SECRET", ""), ("ALERT_HOOK_SECRET", "short")])
def test_the_hook_does_not_start_without_its_secrets(name: str, value: str) -> None:
    environ = {**os.environ, "GITHUB_TOKEN": TOKEN, "ALERT_HOOK_SECRET": SECRET, name: value}
    command = [sys.executable, "scripts/alert_hook", "someone/housing", "0"]
    process = subprocess.run(command, cwd=PROJECT, env=environ, capture_output=True, text=True, check=False, timeout=20)
    assert process.returncode == 1
    assert "error: " in process.stderr and name in process.stderr


def test_the_alerts_of_the_hook_exist() -> None:
    names = set(re.findall(r'"(Housing\w+)"', (PROJECT / "scripts" / "alert_hook").read_text(encoding="utf-8")))
    assert len(names) == 3
    assert names <= set(re.findall(r"alert: (\w+)", (PROJECT / "prometheus" / "alerts.yml").read_text(encoding="utf-8")))
