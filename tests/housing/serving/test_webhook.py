"""MLflow's webhooks at the puller: what is accepted, what is refused, and a real MLflow server that sends one."""

import base64
import hashlib
import hmac
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient

from housing.core.environment import PROJECT
from housing.core.errors import ConfigError
from housing.serving import webhook
from housing.serving.supervisor import server_environment
from housing.serving.webhook import WebhookListener
from housing.tracking import store as tracking
from server.core.settings import Settings
from tests.support.cluster import MlflowServer
from tests.support.server import free_port, serving
from tests.support.tables import config
from tests.support.waiting import wait_for

SECRET = "a secret of the webhook"
BODY = b'{"entity": "model_version_alias", "action": "created"}'
PULLER = (sys.executable, "-m", "housing.serving.puller")
HEAD = "POST /webhook HTTP/1.1\r\nHost: a\r\n"


@pytest.fixture
def hint() -> threading.Event:
    """Return the event that the listener sets."""
    return threading.Event()


@pytest.fixture
def listener(hint: threading.Event) -> Iterator[WebhookListener]:
    """Run a listener on a free port."""
    running = WebhookListener("127.0.0.1", 0, SECRET.encode(), hint)
    yield running
    running.close()


def signed(delivery_id: str = "1", body: bytes = BODY, secret: str = SECRET, age: int = 0) -> str:
    """Return the headers with which MLflow signs a delivery."""
    timestamp = str(int(time.time()) - age)
    content = f"{delivery_id}.{timestamp}.{body.decode()}".encode()
    signature = base64.b64encode(hmac.new(secret.encode(), content, hashlib.sha256).digest()).decode()
    return f"X-MLflow-Delivery-Id: {delivery_id}\r\nX-MLflow-Timestamp: {timestamp}\r\nX-MLflow-Signature: v1,{signature}\r\n"


def send(listener: WebhookListener, data: bytes) -> int:
    """Send bytes. Return the status of the answer, or 0 if the connection is closed without one."""
    with socket.create_connection(("127.0.0.1", listener.port), timeout=60) as connection:
        connection.sendall(data)
        answer = b""
        while received := connection.recv(4096):
            answer += received
    return int(answer.split()[1]) if answer else 0


def delivery(headers: str, body: bytes = BODY) -> bytes:
    """Return a request with these headers."""
    return f"{HEAD}{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def test_a_signed_delivery_is_a_hint_and_its_repetition_is_none(listener: WebhookListener, hint: threading.Event) -> None:
    request = delivery(signed())
    assert send(listener, request) == 204
    assert hint.is_set()
    hint.clear()
    assert send(listener, request) == 204
    assert not hint.is_set()
    assert send(listener, delivery(signed("2"))) == 204
    assert hint.is_set()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (delivery(""), 401),
        (delivery(signed(secret="another")), 401),
        (delivery(signed(age=36_000)), 401),
        (delivery(signed(age=-36_000)), 401),
        (delivery(signed(), BODY + b" "), 401),
        (f"{HEAD}{signed()}\r\n".encode(), 411),
        (f"{HEAD}{signed()}Content-Length: {'0' * 5000}54\r\n\r\n".encode() + BODY, 411),
        (f"{HEAD}{signed()}Content-Length: +54\r\n\r\n".encode() + BODY, 411),
        (f"{HEAD}{signed()}Content-Length: {'9' * 5000}\r\n\r\n".encode(), 411),
        (f"{HEAD}{signed()}Content-Length: 262145\r\n\r\n".encode(), 413),
        (f"{HEAD}{signed()}Content-Length: 54\r\nContent-Length: 5\r\n\r\n".encode() + BODY, 400),
        (f"{HEAD}{signed()}Transfer-Encoding: chunked\r\n\r\n".encode(), 411),
        (f"{HEAD}X: {'x' * 20_000}\r\n\r\n".encode(), 431),
        (delivery(signed()).replace(b"/webhook", b"/other"), 404),
        (delivery(signed()).replace(b"POST", b"PUT"), 405),
        (b"nothing like HTTP\r\n\r\n", 400),
    ],
)
def test_anything_else_is_refused(listener: WebhookListener, hint: threading.Event, request_: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", listener.port), timeout=60) as connection:
        connection.sendall(request_)
        assert int(connection.recv(4096).split()[1]) == status
    assert not hint.is_set()


def test_a_slow_request_is_dropped(listener: WebhookListener, hint: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "REQUEST_SECONDS", 0.2)
    for data in (b"", HEAD.encode(), delivery(signed())[:-1]):
        assert send(listener, data) == 0
    assert not hint.is_set()


def test_connections_beyond_the_limit_are_closed(
    listener: WebhookListener, hint: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "REQUEST_SECONDS", 3600.0)
    monkeypatch.setattr(webhook, "MAX_CONNECTIONS", 1)
    with socket.create_connection(("127.0.0.1", listener.port), timeout=60) as first:
        assert send(listener, b"") == 0  # closed at once: the first one is silent for an hour
        first.sendall(delivery(signed()))
        assert first.recv(4096).startswith(b"HTTP/1.1 204")
    assert hint.is_set()


def test_without_a_secret_the_server_does_not_start(tmp_path: Path) -> None:
    empty = tmp_path / "secret"
    empty.touch()
    for file, message in (("", "not set"), (str(empty), "empty"), (str(tmp_path / "none"), "No such file")):
        serve = config("serve", "data=rentals", "serve.webhook_port=1", f"serve.webhook_secret_file={file}").serve
        with pytest.raises(ConfigError, match=message):
            webhook.read_secret(Settings.from_environment(server_environment(serve)))


@pytest.mark.long
def test_a_port_that_is_taken_stops_no_polling_and_is_tried_again(served_home: Path, tmp_path: Path) -> None:
    secret_file = tmp_path / "secret"
    secret_file.write_text(SECRET, encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as other_program:
        port = other_program.getsockname()[1]
        options = (f"serve.webhook_port={port}", f"serve.webhook_secret_file={secret_file}", "serve.poll_seconds=0.1")
        settings = server_environment(config("serve", "data=rentals", f"serve.release_dir={tmp_path}/releases", *options).serve)
        environ = {**settings, "HOUSING_HOME": str(served_home), "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
        log = tmp_path / "log"
        with running_puller(environ, log):
            wait_for((tmp_path / "releases" / "current").exists, "polling goes on")
            assert log.read_text("utf-8").count(f"Cannot listen for webhooks on 127.0.0.1 port {port}") == 1
            other_program.close()
            wait_for(lambda: f"Listening for webhooks on 127.0.0.1 port {port}" in log.read_text("utf-8"), "the port is used")
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                connection.sendall(delivery(signed()))
                assert connection.recv(4096).startswith(b"HTTP/1.1 204")
            assert log.read_text("utf-8").count("Cannot listen") == 1


@contextmanager
def running_puller(environ: Mapping[str, str], log: Path) -> Iterator[None]:
    """Run the puller, which writes into a log."""
    with log.open("wb") as file, subprocess.Popen(PULLER, cwd=PROJECT, env=environ, stdout=file, stderr=file) as puller:
        try:
            yield
        finally:
            puller.terminate()


@pytest.mark.long
def test_a_webhook_of_a_real_mlflow_makes_the_server_follow_at_once(served_home: Path) -> None:
    registry = tracking.connect(config("serve", "data=rentals").mlflow).registry  # follows the copied store to its new place
    registry.register("housing-rentals", registry.run_of_version("housing-rentals", "1"))
    key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    environment = {
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": key,
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    }
    secret_file, port = served_home / "webhook-secret", free_port()
    secret_file.write_text(f"{SECRET}\n", encoding="utf-8")
    with MlflowServer(served_home, f"sqlite:///{served_home}/mlflow.db", environment=environment) as mlflow_server:
        client = MlflowClient(mlflow_server.address)
        url = f"http://127.0.0.1:{port}/webhook"
        client.create_webhook("housing", url, ["model_version_alias.created"], secret=SECRET)
        overrides = (
            f"serve.tracking_uri={mlflow_server.address}",
            "serve.poll_seconds=3600",  # far longer than the test
            f"serve.webhook_port={port}",
            f"serve.webhook_secret_file={secret_file}",
            "serve.workers=1",
        )
        with serving(served_home, *overrides) as server:
            wait_for(lambda: server.answers("/readyz"), "the model is published")
            assert server.ask("/model").json["version"] == "1"
            client.set_registered_model_alias("housing-rentals", "staging", "2")
            wait_for(lambda: server.ask("/model").json["version"] == "2", "the webhook has woken the puller")
