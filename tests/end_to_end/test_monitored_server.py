"""serve.monitor: a real server's traffic becomes drift and estimated errors, feedback corrects them, and a report shows them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from housing.monitoring.database import MonitorDatabase, read_increases
from housing.monitoring.log_follower import LogFollower
from tests.support.commands import command
from tests.support.feedback import log_dir, send_labels
from tests.support.server import Server, promoted, scraped, serving
from tests.support.tables import FLAT, TABLES, rentals_frame
from tests.support.waiting import wait_for

pytestmark = pytest.mark.long

WINDOW_ROWS = 300
ERROR_FACTOR = 3.0  # true values are this many estimated RMSEs away from the predictions
FEATURES = list(FLAT)


@pytest.fixture(name="home", scope="module")
def fixture_home(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A home with a promoted model that has intervals."""
    return promoted(tmp_path_factory.mktemp("monitored"), "rentals", empty_store)


@pytest.fixture(name="server", scope="module")
def fixture_server(home: Path) -> Iterator[Server]:
    """A server with a monitor."""
    monitor = "serve.monitor=true", f"serve.monitor_window_rows={WINDOW_ROWS}", "serve.feedback_timeout_seconds=4"
    with serving(home, *monitor) as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        yield running


def gauge(server: Server, name: str) -> float:
    """Return a metric of version 1, or NaN if it is not published yet."""
    return scraped(server).get(f'{name}{{version="1"}}', float("nan"))


def send_window(server: Server, seed: int, shift: float = 0.0) -> list[tuple[str, list[float]]]:
    """Send the rows of a window in requests of ten, and return their IDs and predictions. `shift` moves an area upwards."""
    frame = rentals_frame(WINDOW_ROWS, seed)
    frame["area"] = (frame["area"] + shift * (150 - frame["area"])).round(1)
    rows = json.loads(frame[FEATURES].to_json(orient="split"))["data"]
    answers = []
    for start in range(0, WINDOW_ROWS, 10):
        answer = server.ask("/predict", json.dumps({"columns": FEATURES, "rows": rows[start : start + 10]}).encode())
        assert answer.status == 200, answer
        answers.append((answer.json["request_id"], answer.json["predictions"]))
    return answers


def unread_bytes(home: Path) -> int:
    """Return how much of the log the monitor has not read now; its gauge may be a step old."""
    database = MonitorDatabase(log_dir(home))
    try:
        return LogFollower(log_dir(home), database).unread_bytes()
    finally:
        database.close()


def wait_for_windows(server: Server, count: int) -> None:
    """Wait until so many windows are analysed."""
    wait_for(lambda: scraped(server).get("housing_monitor_windows_total", 0.0) >= count, f"{count} windows are analysed")


def test_traffic_becomes_drift_and_estimated_errors_that_feedback_corrects_and_a_report(home: Path, server: Server) -> None:
    answers = send_window(server, seed=11)
    wait_for_windows(server, 1)
    wait_for(lambda: gauge(server, "housing_estimated_rmse") > 0, "the error is estimated")
    before, standard_error = gauge(server, "housing_estimated_rmse"), gauge(server, "housing_estimated_rmse_standard_error")
    assert 0 < standard_error < before and gauge(server, "housing_estimated_error_correction") == 1
    assert gauge(server, "housing_multivariate_drift_z") < 3.3

    for request_id, predictions in answers:
        actual = [value + ERROR_FACTOR * before for value in predictions]
        send_labels(server, [{"request_id": request_id, "row": row, "value": value} for row, value in enumerate(actual)])
    matched = 'housing_feedback_matched_total{version="1"}'
    wait_for(lambda: scraped(server).get(matched) == WINDOW_ROWS, "all true values are matched")
    wait_for(lambda: unread_bytes(home) == 0, "the monitor has read them")
    send_window(server, seed=12)
    wait_for_windows(server, 2)
    wait_for(lambda: gauge(server, "housing_estimated_error_correction") > 1.5, "the estimate is corrected")
    assert gauge(server, "housing_estimated_rmse") > 1.5 * before

    send_window(server, seed=13, shift=0.6)
    wait_for_windows(server, 3)
    wait_for(lambda: gauge(server, "housing_multivariate_drift_z") > 3.3, "the window has drifted")
    for invalid in ({"area": 1000.0}, {"quarter": "moon"}):
        assert server.ask("/predict", json.dumps({**FLAT, **invalid}).encode()).status == 422
    wait_for(lambda: any(read_increases(log_dir(home), 0, float("inf")).values()), "the monitor has recorded the refused values")
    assert_report(report(home), (home / "page.html").read_text(encoding="utf-8"), ERROR_FACTOR * before)


def report(home: Path) -> dict[str, Any]:
    """Write a report, and return its document."""
    words = (f"--config-dir={TABLES}", "data=rentals", "since=2h", f"out={home}/page.html", "output=json")
    result = command(home, "housing.monitor", *words)
    assert result.code == 0, result.err
    return dict(json.loads(result.out)["result"])


def assert_report(result: dict[str, Any], page: str, realised: float) -> None:
    """Check the numbers of a report, and that its page shows them."""
    (version,) = result["versions"]
    assert (version["requests"], version["rows"]) == (3 * WINDOW_ROWS // 10, 3 * WINDOW_ROWS)
    assert (version["windows"], version["drifted_windows"]) == (3, 1)
    assert version["realised"]["labels"] == WINDOW_ROWS
    assert version["realised"]["rmse"]["value"] == pytest.approx(realised)
    assert version["estimated_rmse"]["correction"] > 1.5
    refused = {(item["column"], item["reason"], item["count"]) for item in result["refused_values"]}
    assert refused == {("area", "bounds", 1), ("quarter", "category", 1)}
    failed = [(item["route"], item["status"], item["count"]) for item in result["failed_requests"]]
    assert failed == [("/predict", "422", 2)]
    assert [item["verdict"] for item in result["decisions"]] == ["PROMOTE"]
    assert np.isfinite(result["latency_ms"]["p99"]["value"])
    assert "1 of 3 windows drifted" in page and re.search(r"realised RMSE of 300 rows with true values", page)
    assert page.count("<svg") == 4
