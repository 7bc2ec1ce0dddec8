"""The status of a running server: which version it serves."""

import json
import time
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any

from housing.core.http import NO_PROXY_OPENER
from housing.promotion.settings import ServerSettings

POLL_SECONDS = 0.2
REQUEST_TIMEOUT_SECONDS = 5


@dataclass(frozen=True)
class ServerStatus:
    """When a server was first seen to serve a version, in ISO format, or "" if it never was; and a sentence that says so."""

    since: str
    message: str


def wait_for_version(server: ServerSettings, model: str, alias: str, version: str) -> ServerStatus:
    """Poll a server until it serves a version of a model, or until the wait is over."""
    start = time.monotonic()
    while True:
        mismatch = _mismatch(server, model, alias, version)
        seconds = time.monotonic() - start
        if not mismatch:
            since = datetime.now(UTC).isoformat(timespec="seconds")
            return ServerStatus(since, f"{server.url} serves version {version} after {seconds:.1f} s")
        if seconds > server.wait_seconds:
            return ServerStatus("", f"{server.url} does not serve version {version} after {server.wait_seconds:g} s: {mismatch}")
        time.sleep(POLL_SECONDS)


def _mismatch(server: ServerSettings, model: str, alias: str, version: str) -> str:
    """Describe how a server's answer differs from what is expected; "" if it does not."""
    try:
        answer = _fetch_model_info(server)
    except (OSError, HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    expected = {"model": model, "alias": alias, "version": version}
    differences = [f"{name} {answer.get(name)}" for name, value in expected.items() if answer.get(name) != value]
    return f"it serves {', '.join(differences)}" if differences else ""


def _fetch_model_info(server: ServerSettings) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {server.key}"} if server.key else {}
    request = urllib.request.Request(f"{str(server.url).rstrip('/')}/model", headers=headers)
    with NO_PROXY_OPENER.open(request, timeout=REQUEST_TIMEOUT_SECONDS) as response:
        answer = json.load(response)
    return answer if isinstance(answer, dict) else {}  # another program may listen at this address
