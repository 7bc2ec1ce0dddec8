"""Decisions as signed CloudEvents, sent to real receivers: one that accepts them, and others that refuse, stall or drip."""

import base64
import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from housing.core.errors import ConfigError
from housing.promotion.decision import Decision
from housing.promotion.decision_events import EventSettings, send_decision
from housing.promotion.promotion import promote
from housing.promotion.rolling_back import rollback
from housing.tracking import store as tracking
from tests.support.tables import config, train

KEY = bytes(range(32))
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
TOKEN = "token-in-the-path"
ACCEPT = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"
REDIRECT = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n"
REFUSE = b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"

Received = list[tuple[dict[str, str], bytes]]


@contextmanager
def receiver(answer: Callable[[socket.socket, threading.Event], None]) -> Iterator[tuple[str, Received]]:
    """Listen on a free port; keep the header and the body of each request, and answer it. Yield the address."""
    received: Received = []
    is_over = threading.Event()

    def serve() -> None:
        while not is_over.is_set():
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                data = b""
                while b"\r\n\r\n" not in data:
                    data += connection.recv(65536) or b"\r\n\r\n"
                head, _, body = data.partition(b"\r\n\r\n")
                lines = [line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if ": " in line]
                headers = {name.lower(): value for name, value in lines}
                while len(body) < int(headers.get("content-length", 0)):
                    body += connection.recv(65536)
                if headers:
                    received.append((headers, body))
                    answer(connection, is_over)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}/{TOKEN}", received
        finally:
            is_over.set()
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as last:
                last.shutdown(socket.SHUT_WR)
            thread.join()


def always(response: bytes) -> Callable[[socket.socket, threading.Event], None]:
    """Return an answer that is the same for each request."""
    return lambda connection, _: connection.sendall(response)


def drip(connection: socket.socket, is_over: threading.Event) -> None:
    """Answer byte by byte, without an end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while not is_over.wait(0.05):
        connection.sendall(b"x")


def silence(_: socket.socket, is_over: threading.Event) -> None:
    """Answer nothing until the test is over."""
    is_over.wait()


def settings(url: str, timeout_seconds: float = 60) -> EventSettings:
    """Return the settings of a config."""
    cfg = OmegaConf.create({"url": url, "secret": SECRET, "timeout_seconds": timeout_seconds})
    events = EventSettings.from_config(cfg)
    assert events is not None
    return events


def test_promotion_and_rollback_are_sent_as_signed_events(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOUSING_EVENTS_SECRET", SECRET)
    with receiver(always(ACCEPT)) as (url, received):
        overrides = ("data=rentals", f"events.url={url}", "events.timeout_seconds=60")
        for depth in (2, 6):
            train(home, "model=decision_tree", "figures=false", f"model.estimator.max_depth={depth}")
            assert promote(config("promote", *overrides, "gate.smoke_test_seconds=null")).verdict == "PROMOTE"
        rollback(config("rollback", *overrides, "reason=too hot"))
    assert len(received) == 3
    events = [json.loads(body) for _, body in received]
    assert [event["type"] for event in events] == [f"housing.decision.{name}" for name in ("promote", "promote", "rollback")]
    for (headers, body), event in zip(received, events, strict=True):
        assert headers["content-type"] == "application/cloudevents+json"
        content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        signature = base64.b64encode(hmac.new(KEY, content, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{signature}"
        assert event["id"] == headers["webhook-id"]
        assert (event["specversion"], event["source"], event["subject"]) == ("1.0", "/models/housing-rentals", "staging")
    data = events[2]["data"]
    assert (data["previous_version"], data["version"], data["reasons"]) == ("2", "1", ["too hot"])
    store = tracking.connect(config("train", "data=rentals").mlflow)
    runs = store.runs.find_latest("rentals-decisions", {}, 10)
    assert {event["id"] for event in events} == {run.id for run in runs}
    assert "not sent" not in caplog.text
    for text in (str(runs), *(path.read_text("utf-8", "replace") for path in home.rglob("decision.json"))):
        assert SECRET not in text and TOKEN not in text


@pytest.mark.parametrize(
    ("answer", "seconds", "reason"),
    [
        (always(REFUSE), 60, "the receiver answered with status 500"),
        (always(REDIRECT), 60, "the receiver answered with status 307"),
        (always(b"nothing like HTTP\r\n\r\n"), 60, "BadStatusLine"),
        (silence, 0.3, ""),
        (drip, 0.3, ""),
    ],
)
def test_a_receiver_that_fails_is_a_warning_with_the_next_step(
    answer: Any, seconds: float, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    decision = Decision("run", "staging", verdict="HOLD")
    with receiver(answer) as (url, received):
        send_decision(settings(url, seconds), "housing-rentals", decision, "id")
    assert len(received) <= 1  # a redirect is not followed, and nothing is sent again
    (record,) = caplog.records
    text = record.getMessage()
    assert record.levelname == "WARNING"
    assert text.startswith("The decision HOLD about staging was not sent to http://127.0.0.1:") and reason in text
    assert "The decision stands." in text and "history" in text
    assert SECRET not in text and TOKEN not in text


@pytest.mark.parametrize(
    ("url", "secret", "message"),
    [
        ("ftp://example.org", SECRET, "events.url must be http"),
        ("https://user:password@example.org", SECRET, "events.url must be http"),
        ("https://example.org", "", "HOUSING_EVENTS_SECRET"),
        ("https://example.org", "whsec_c2hvcnQ=", "HOUSING_EVENTS_SECRET"),
        ("https://example.org", "whsec_ä", "HOUSING_EVENTS_SECRET"),
    ],
)
def test_a_wrong_address_or_key_is_refused_before_the_decision(url: str, secret: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        EventSettings.from_config(OmegaConf.create({"url": url, "secret": secret, "timeout_seconds": 5}))
    assert "password" not in str(raised.value).replace("a user and a password", "")
    assert not secret or secret not in str(raised.value)


def test_the_key_is_not_in_the_text_of_the_settings() -> None:
    assert str(KEY) not in repr(settings("https://example.org"))
    assert EventSettings.from_config(OmegaConf.create({"url": None, "secret": "", "timeout_seconds": 5})) is None
