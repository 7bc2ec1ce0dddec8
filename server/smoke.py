"""The smoke test of a new instance: it is ready, and predicts the row that its model gives as an example.

HOUSING_KEY is a key with the right predict, where keys are needed.
"""

import json
import os
import sys
from http.client import HTTPConnection
from typing import Any

from server.settings import Settings


def main() -> None:
    """Ask. Ends with an error where an answer is not 200; raises OSError where there is none."""
    port = Settings.from_environment().port
    key = os.environ.get("HOUSING_KEY")
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    _ask(port, "GET", "/readyz", None, headers)
    example = _ask(port, "GET", "/model", None, headers)["example"]
    print(_ask(port, "POST", "/predict", json.dumps(example), headers)["predictions"])


def _ask(port: int, method: str, route: str, body: str | None, headers: dict[str, str]) -> Any:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request(method, route, body, headers)
    answer = connection.getresponse()
    if answer.status != 200:
        sys.exit(f"error: {route} says {answer.status}: {answer.read().decode()}")
    return json.load(answer)


if __name__ == "__main__":
    main()
