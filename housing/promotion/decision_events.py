"""Decisions as events: each is sent to an address as a CloudEvent, signed as Standard Webhooks are.

An event follows its decision, which stands whatever becomes of the event.
"""

import base64
import binascii
import hashlib
import hmac
import json
import logging
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any, Self
from urllib.parse import quote, urlsplit

from omegaconf import DictConfig

from housing.command_line.next_command import next_command
from housing.core.errors import ConfigError
from housing.core.validators import POSITIVE
from housing.promotion.decision import Decision

MEDIA_TYPE = "application/cloudevents+json"
TYPE_PREFIX = "housing.decision."
SECRET_PREFIX = "whsec_"  # of Standard Webhooks
SECRET_BYTES = range(24, 65)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EventSettings:
    """The receiver of decisions, the key that signs them, and the time that sending one may take in all."""

    url: str
    secret: bytes = field(repr=False)
    timeout_seconds: float

    @classmethod
    def from_config(cls, events: DictConfig) -> Self | None:
        """Read the config `events`. Return None if decisions are sent nowhere. Raise ConfigError, without the secret."""
        POSITIVE.validate("events.timeout_seconds", events.timeout_seconds)
        if not events.url:
            return None
        parts = urlsplit(str(events.url))
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ConfigError("events.url must be http://HOST/... or https://HOST/..., without a user and a password.")
        return cls(str(events.url), _read_secret(str(events.secret)), float(events.timeout_seconds))

    @property
    def receiver(self) -> str:
        """The address without its path and query, which can contain a token."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


def _read_secret(text: str) -> bytes:
    try:
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) not in SECRET_BYTES:
        raise ConfigError(
            f"events.secret must be {SECRET_PREFIX} and {SECRET_BYTES[0]} to {SECRET_BYTES[-1]} bytes in base64, as a receiver of"
            " Standard Webhooks has it. Set the environment variable HOUSING_EVENTS_SECRET. Make one with:"
            f" echo {SECRET_PREFIX}$(openssl rand -base64 32)"
        )
    return secret


def send_decision(settings: EventSettings | None, registered_model: str, decision: Decision, decision_id: str) -> None:
    """Send a logged decision. If that fails, or takes too long, log a warning: the decision stands."""
    if settings is None:
        return
    event = _event(registered_model, decision, decision_id)
    request = _signed_request(settings, event["id"], json.dumps(event, allow_nan=False).encode())
    failure = ["no answer in time"]

    def send() -> None:
        failure[0] = _post(request, settings.timeout_seconds)

    # looking up a name, and an answer byte by byte, have no time limit of their own, so nobody waits for the end of this thread
    sender = threading.Thread(target=send, name="decision event", daemon=True)
    sender.start()
    sender.join(settings.timeout_seconds)
    if failure[0]:
        command = next_command("history", f"alias={decision.alias}")
        log.warning(
            "The decision %s about %s was not sent to %s (events.url): %s. The decision stands. Read it with: %s",
            decision.verdict,
            decision.alias,
            settings.receiver,
            failure[0],
            command,
        )


def _event(registered_model: str, decision: Decision, decision_id: str) -> dict[str, Any]:
    """Return a decision as a CloudEvent 1.0 in structured mode."""
    return {
        "specversion": "1.0",
        "id": decision_id,
        "source": f"/models/{quote(registered_model, safe='')}",
        "type": f"{TYPE_PREFIX}{decision.verdict.lower().replace(' ', '_')}",
        "subject": decision.alias,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "datacontenttype": "application/json",
        "data": {
            "model": registered_model,
            "alias": decision.alias,
            "verdict": decision.verdict,
            "previous_version": decision.previous_version,
            "version": decision.version,
            "requested_version": decision.requested_version,
            "actor": decision.actor,
            "requested_by": decision.requested_by,
            "reasons": decision.reasons,
            "forced": bool(decision.force_reason),
            "run_id": decision.run_id,
            "challenger_metrics": decision.challenger_metrics,
            "champion_metrics": decision.champion_metrics,
            "served_at": decision.served_at,
        },
    }


def _signed_request(settings: EventSettings, event_id: str, body: bytes) -> urllib.request.Request:
    """Return a request whose signature covers the ID, the time and the body (Standard Webhooks 1.0, symmetric)."""
    timestamp = str(int(time.time()))
    content = b".".join((event_id.encode(), timestamp.encode(), body))
    signature = base64.b64encode(hmac.digest(settings.secret, content, hashlib.sha256)).decode()
    headers = {
        "Content-Type": MEDIA_TYPE,
        "webhook-id": event_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{signature}",
    }
    return urllib.request.Request(settings.url, body, headers, method="POST")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: a decision goes to the configured address alone."""

    def redirect_request(self, *_: Any) -> None:
        """Return None: the redirect is an error."""


def _post(request: urllib.request.Request, timeout: float) -> str:
    """Send a request. Return "" if the receiver accepts it, or else why it was not sent. The body of an answer is not read."""
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=timeout):
            return ""
    except urllib.error.HTTPError as error:
        with error:
            return f"the receiver answered with status {error.code}"
    except urllib.error.URLError as error:
        return f"{error.reason}"
    except (OSError, HTTPException, ValueError) as error:
        return type(error).__name__
