"""Predictions and their labels: requests to a server, and lines of its logs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from housing.server_files.rotating_file import RotatingFile, iter_lines, list_files
from tests.support.server import Answer, Server
from tests.support.tables import FLAT

UNKNOWN_ID = "0193f5c2a1b3-00-00000000"  # the id of a request that was never sent


Label = dict[str, Any]


def send(server: Server, body: object) -> Answer:
    """Send feedback."""
    return server.ask("/feedback", json.dumps(body).replace("Infinity", "1e999").encode())


def send_labels(server: Server, labels: Sequence[Label]) -> None:
    """Send labels, which must be accepted."""
    answer = send(server, {"feedback": labels})
    assert (answer.status, answer.type, answer.json["accepted"]) == (202, "application/json", len(labels))


def predict_areas(server: Server, areas: Sequence[float], coverage: float | None = None) -> Any:
    """Request predictions for flats with these areas, in the format of columns and rows."""
    query = "" if coverage is None else f"?interval={coverage}"
    rows = [[area, *list(FLAT.values())[1:]] for area in areas]
    answer = server.ask(f"/predict{query}", json.dumps({"columns": list(FLAT), "rows": rows}).encode())
    assert answer.status == 200, answer
    return answer.json


def log_dir(home: Path) -> Path:
    """Return the directory of prediction log and feedback."""
    return home / "serving" / "rentals-staging.log"


def lines(folder: Path, kind: str) -> list[Any]:
    """Return the complete lines of all files of a kind. A killed process may have left a partial line."""
    return [json.loads(line) for path in list_files(folder, kind) for line in iter_lines(path)]


def entry(name: str, predictions: Sequence[float], version: str = "1") -> dict[str, Any]:
    """Return an entry of the prediction log."""
    rows = [[float(index)] for index in range(len(predictions))]
    return {"id": name, "time": 0.0, "version": version, "columns": ["area"], "rows": rows, "predictions": list(predictions)}


def append(folder: Path, name: str, *entries: object) -> None:
    """Append lines like a worker."""
    data = "".join(f"{json.dumps(line, separators=(',', ':'))}\n" for line in entries)
    RotatingFile(folder, name, 10**9, 10, 30).append(data.encode())
