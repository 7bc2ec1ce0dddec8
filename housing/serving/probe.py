"""Probes of a running server, for health checks and deployments.

    python -m housing.serving.probe            check that the process is alive (/healthz)
    python -m housing.serving.probe predict    check that a model is ready, and predict its example row

If the server requires API keys, set HOUSING_KEY to one with the right `predict`.
"""

import json
import os
import sys
from http.client import HTTPConnection
from typing import Any

from housing.core.printable import show
from server.core.settings import Settings

TIMEOUT_SECONDS = 5.0


def live() -> None:
    """Exit with an error unless `/healthz` answers 200. Raises OSError if no worker answers."""
    _request("GET", "/healthz")


def predict() -> None:
    """Print the prediction for the model's example row. Raises OSError if no worker answers."""
    _request("GET", "/readyz")
    example = json.loads(_request("GET", "/model"))["example"]
    show(str(json.loads(_request("POST", "/predict", json.dumps(example)))["predictions"]))


def _request(method: str, route: str, body: str | None = None) -> Any:
    key = os.environ.get("HOUSING_KEY")
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    settings = Settings.from_environment()
    connection = HTTPConnection(settings.local_host, settings.port, timeout=TIMEOUT_SECONDS)
    connection.request(method, route, body, headers)
    response = connection.getresponse()
    content = response.read().decode()
    if response.status != 200:
        sys.exit(f"error: {method} {route} answered {response.status}: {content}")
    return content


PROBES = {"live": live, "predict": predict}

if __name__ == "__main__":
    PROBES[sys.argv[1] if len(sys.argv) > 1 else "live"]()
