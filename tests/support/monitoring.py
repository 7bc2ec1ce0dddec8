"""A release and a prediction log for a monitor that runs in the test's own process."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from housing.bundle.bundle import Bundle
from housing.server_files.metric_files import read_series
from housing.serving.publishing import publish
from server.core.settings import Settings
from tests.support.feedback import append

WINDOW_ROWS = 100
START = float(int(time.time()))  # of the log: results are removed some days later


def monitor_settings(folder: Path, bundle: Bundle, **settings: str) -> Settings:
    """Publish a bundle as version 1 in a folder, and return the settings of a monitor of its log."""
    bundle.write(folder / "bundle")
    publish(folder / "releases", "1", folder / "bundle", {"model": "m", "version": "1", "alias": "staging"})
    for name in ("log", "metrics"):
        (folder / name).mkdir()
    environ = {"MODEL": "m", "TRACKING_URI": "", "RELEASE_DIR": f"{folder}/releases", "LOG_DIR": f"{folder}/log"}
    environ |= {"MONITOR_WINDOW_ROWS": str(WINDOW_ROWS), **settings}
    return Settings.from_environment({f"HOUSING_{name}": value for name, value in environ.items()})


def log_requests(folder: Path, bundle: Bundle, records: Sequence[dict[str, Any]], first: int = 0) -> list[dict[str, Any]]:
    """Append one request per row to the prediction log in a folder, and return the entries."""
    predictions = bundle.predict(bundle.schema.encode_records(records)).tolist()
    entries = [
        {
            "id": f"{first + index:024d}",
            "time": START + first + index,
            "version": "1",
            "columns": list(record),
            "rows": [list(record.values())],
            "predictions": [prediction],
        }
        for index, (record, prediction) in enumerate(zip(records, predictions, strict=True))
    ]
    append(folder / "log", "predictions-0", *entries)
    return entries


def log_true_values(folder: Path, entries: Sequence[dict[str, Any]], actual: Sequence[float]) -> None:
    """Append joined rows, the true values of requests with one row, to the log in a folder."""
    joined = [
        {
            "id": entry["id"],
            "row": 0,
            "value": float(value),
            "time": entry["time"],
            "prediction": entry["predictions"][0],
            "version": entry["version"],
            "columns": dict(zip(entry["columns"], entry["rows"][0], strict=True)),
        }
        for entry, value in zip(entries, actual, strict=True)
    ]
    append(folder / "log", "joined", *joined)


def published(folder: Path) -> dict[str, float]:
    """Return the monitor's metrics: key and value of each series."""
    paths = sorted((folder / "metrics").glob("*.db"))
    return {key: value for path in paths for key, value, _, _ in read_series(path)}


def metric(folder: Path, name: str) -> float:
    """Return the value of the only series of a name."""
    values = [value for key, value in published(folder).items() if f'"{name}"' in key]
    assert len(values) == 1, f"{name} must have one series (got {len(values)})"
    return values[0]
