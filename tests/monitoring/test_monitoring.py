"""A server with two workers, monitored by Prometheus and Alertmanager with the project's rules and alerts."""

import json
import math
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from grafana import alerts
from grafana.prometheus_api import Prometheus, panel_queries, read_panels
from tests.support import prometheus as prometheus_support
from tests.support.dashboard_pictures import OF_SERVER, draw
from tests.support.monitored_server import Caller, MonitoredServer
from tests.support.monitored_server import monitored as run_monitored
from tests.support.server import promoted
from tests.support.tables import FLAT, rentals_frame
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("monitoring")]

DRIFT, LIVE_ERROR, PREDICTION_DRIFT = "HousingColumnDrift", "HousingLiveError", "HousingPredictionDrift"
# the others: test_alert_delivery.py
ALERTS = [alert for alert in alerts.read_alerts().values() if "housing_table:" not in alert.expressions[0]]
COUNTER = re.compile("housing_.+_(total|count|bucket)")


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[MonitoredServer]:
    """A monitored server of the rentals model, after 3,000 rows from the training distribution."""
    if not prometheus_support.is_installed():
        pytest.skip(prometheus_support.HINT)
    home = promoted(tmp_path_factory.mktemp("watched"), "rentals", empty_store)
    with run_monitored(home, tmp_path_factory.mktemp("prometheus"), "rentals") as server:
        for seed in range(100, 130):
            server.caller.predict(rentals_frame(100, seed))
        request_every_route(server.caller)
        server.settle()
        yield server


def request_every_route(caller: Caller) -> None:
    """Send a request to every route, and every kind of invalid request."""
    flat = json.dumps(FLAT).encode()
    for route in ("/", "/docs", "/examples", "/openapi.json", "/model", "/version", "/ping", "/health"):
        assert caller.ask(route).status == 200, route
    for route in ("/explain", "/curves"):
        assert caller.ask(route, flat).status == 200, route
    for invalid in ({"area": "x"}, {"area": 1000.0}, {"quarter": "moon"}, {"area": None}, {"nothing": 1}):
        assert caller.ask("/predict", json.dumps({**FLAT, **invalid}).encode()).status == 422
    assert caller.ask("/predict", b"{").status == 400
    assert caller.ask("/predict", flat, Content_Type="text/plain").status == 415
    assert caller.ask("/invocations", b"{}").status == 422
    assert caller.ask("/nowhere", rule="unknown").status == 404
    response = caller.predict(rentals_frame(50, seed=2), "/predict?interval=0.8")
    caller.send_feedback(response, np.array(response["predictions"]) + 30)
    caller.send_feedback({"request_id": "0193f5c2a1b3-00-00000000"}, np.array([1.0]))  # an unknown request id


def test_every_request_row_and_value_is_counted(monitored: MonitoredServer) -> None:
    requests = monitored.caller.requests
    counted = monitored.counts("housing_request_seconds_count", "route", "status")
    assert {key: count for key, count in counted.items() if key[0] not in ("/healthz", "/readyz", "/metrics")} == requests
    assert monitored.total("housing_interval_width_count_total") == len(monitored.caller.widths)
    assert monitored.total("housing_interval_width_sum_total") == pytest.approx(sum(monitored.caller.widths), rel=1e-12)
    bins = monitored.bins()
    n_sent = {(column, bin_): count for column, counts in bins.items() for bin_, count in counts.items() if count and column}
    assert monitored.counts("housing_column_bin_total", "column", "bin") == n_sent
    assert monitored.counts("housing_prediction_bin_total", "bin") == {
        (bin_,): count for bin_, count in bins[""].items() if count
    }
    refused = [("area", "type"), ("area", "bounds"), ("quarter", "category"), ("area", "missing"), ("other", "unknown")]
    assert monitored.counts("housing_rejected_values_total", "column", "reason") == dict.fromkeys(refused, 1.0)


def test_every_panel_has_data(monitored: MonitoredServer) -> None:
    for path in OF_SERVER:
        for panel in read_panels(path):
            for _, expr in panel_queries(panel, "5m"):
                assert_shown(monitored.prometheus, f"{path.stem}: {panel['title']}", expr)


def test_every_dashboard_is_drawn(monitored: MonitoredServer, tmp_path: Path) -> None:
    draw(monitored.prometheus, tmp_path, OF_SERVER)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {f"dashboard-{path.stem}.png" for path in OF_SERVER}
    assert all(10_000 < size < 150_000 for size in sizes.values()), sizes


def assert_shown(prometheus: Prometheus, panel: str, expr: str) -> None:
    """Check that the query of a panel returns a number within the timeout."""
    wait_for(lambda: has_data(prometheus, expr), f"{panel}: {expr}")


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_every_expression_of_an_alert_has_data(monitored: MonitoredServer, alert: alerts.Alert) -> None:
    for vector in alert.expressions:
        assert_shown(monitored.prometheus, alert.name, vector)


def has_data(prometheus: Prometheus, expr: str) -> bool:
    """Return whether the query currently returns a number."""
    return any(math.isfinite(series.values[0]) for series in prometheus.query(expr))


def test_stability_index_equals_that_of_numpy(monitored: MonitoredServer) -> None:
    monitored.settle()
    for name, (rule, from_increases, from_rows) in monitored.indices().items():
        assert rule == pytest.approx(from_increases, abs=1e-6), name
        assert rule == pytest.approx(from_rows, abs=0.005), name


def test_totals_survive_a_killed_worker(monitored: MonitoredServer) -> None:
    monitored.settle()
    names = (
        'sum by (__name__) ({__name__=~"housing_(rows|column_bin|prediction_bin|interval_width_count|rejected_values)_total"})'
    )
    before = monitored.prometheus.query(names)
    victim, other = monitored.caller.server.workers()
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len({*monitored.caller.server.workers()} - {victim, other}) == 1, "the killed worker is replaced")
    for seed in range(8):  # both workers respond; counters are the sum of the files of the killed and the living ones
        monitored.caller.predict(rentals_frame(10, seed))
    monitored.settle()
    increases = {series.labels["__name__"]: series.values[0] for series in monitored.prometheus.query(names)}
    for series in before:
        increases[series.labels["__name__"]] -= series.values[0]
    columns = len(monitored.bundle.schema.features)
    expected = {"rows": 80, "column_bin": 80 * columns, "prediction_bin": 80, "interval_width_count": 0, "rejected_values": 0}
    assert increases == {f"housing_{name}_total": value for name, value in expected.items()}
    counters = list(filter(COUNTER.fullmatch, monitored.prometheus.get("label/__name__/values")))
    assert "housing_request_seconds_bucket" in counters
    assert {name for name in counters if monitored.total(f"resets({name}[1h])")} == set()


def test_large_errors_in_feedback_fire_the_live_error_alert(monitored: MonitoredServer) -> None:
    response = monitored.caller.predict(rentals_frame(600, seed=3))
    predictions = np.array(response["predictions"])
    validation_rmse = monitored.bundle.card["metrics"]["rmse"]
    errors = validation_rmse * np.resize([1, -1], len(predictions))  # as large as the validation error
    monitored.caller.send_feedback(response, predictions + errors)
    query = 'version:housing_feedback:increase24h{version="1"} >= 600'
    wait_for(lambda: bool(monitored.prometheus.query(query)), "feedback is counted")
    monitored.settle()
    assert not monitored.firing(LIVE_ERROR)
    response = monitored.caller.predict(rentals_frame(600, seed=6))  # new rows, because a row counts once
    monitored.caller.send_feedback(response, np.array(response["predictions"]) + 10 * validation_rmse)
    wait_for(lambda: bool(monitored.firing(LIVE_ERROR)), "the alert fires")
    wait_for(lambda: bool(monitored.receiver.firing(LIVE_ERROR)), "Alertmanager sends the alert")
    assert monitored.receiver.firing(LIVE_ERROR)[0]["version"] == "1"


def test_only_shifted_rows_fire_the_drift_alert_of_their_column(monitored: MonitoredServer) -> None:
    monitored.caller.predict(rentals_frame(1000, seed=4))
    monitored.settle()
    assert monitored.prometheus.query("version:housing_rows:increase >= 500")  # enough rows for the alert to fire
    assert not monitored.firing(DRIFT) and not monitored.firing(PREDICTION_DRIFT)
    shifted = rentals_frame(9000, seed=5)
    monitored.caller.predict(shifted.assign(area=(shifted["area"] * 0.5 + 75).round(1)))  # the upper half of the training range
    wait_for(lambda: bool(monitored.firing(DRIFT)), "the alert fires")
    wait_for(lambda: bool(monitored.receiver.firing(DRIFT)), "Alertmanager sends the alert")
    assert {series["column"] for series in monitored.firing(DRIFT)} == {"area"}
    assert {series["column"] for series in monitored.receiver.firing(DRIFT)} == {"area"}
