"""A server that follows an alias, as anybody sees it from outside: which version it answers with."""

import json
import time
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any

from omegaconf import DictConfig

from housing.core.http import NO_PROXY_OPENER

POLL_SECONDS = 0.2  # seconds between two looks


@dataclass(frozen=True)
class ServerStatus:
    """Whether a server answers with a version: since when, or what it says instead."""

    since: str
    message: str


def wait_for_version(serve: DictConfig, model: str, alias: str, version: str) -> ServerStatus:
    """Ask a server again and again, until it answers with a version of a model or the time is over."""
    begun = time.monotonic()
    while True:
        told = _mismatch(serve, model, alias, version)
        seconds = time.monotonic() - begun
        if not told:
            since = datetime.now(UTC).isoformat(timespec="seconds")
            return ServerStatus(since, f"{serve.url} answers with version {version}, after {seconds:.1f} s")
        if seconds > serve.wait_seconds:
            return ServerStatus("", f"{serve.url} does NOT answer with version {version} after {serve.wait_seconds:g} s: {told}")
        time.sleep(POLL_SECONDS)


def _mismatch(serve: DictConfig, model: str, alias: str, version: str) -> str:
    """Say what a server answers with where it is something else."""
    try:
        answer = _fetch_model_info(serve)
    except (OSError, HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    wanted = {"model": model, "alias": alias, "version": version}
    other = [f"{name} {answer.get(name)}" for name, value in wanted.items() if answer.get(name) != value]
    return f"it has {', '.join(other)}" if other else ""


def _fetch_model_info(serve: DictConfig) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {serve.key}"} if serve.key else {}
    request = urllib.request.Request(f"{serve.url.rstrip('/')}/model", headers=headers)
    with NO_PROXY_OPENER.open(request, timeout=5) as answer:
        found = json.load(answer)
    return found if isinstance(found, dict) else {}  # something else answers there
