"""Watched for real: a server of two workers, Prometheus and Alertmanager with the project's rules and alerts."""

import json
import math
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from grafana import alerts, generate
from grafana.prometheus_api import Prometheus, panel_queries, read_panels
from tests.support import prometheus as watching
from tests.support.dashboard_pictures import draw
from tests.support.monitored_server import Caller, Watched
from tests.support.monitored_server import watched as being_watched
from tests.support.server import promoted
from tests.support.tables import FLAT, rentals_frame
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("monitoring")]

DRIFT, LIVE, PREDICTED = "HousingColumnDrift", "HousingLiveError", "HousingPredictionDrift"
COUNTER = re.compile("housing_.+_(total|count|bucket)")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Watched]:
    """A promoted model of the rentals, served by two workers and watched, after 3,000 rows like those of training."""
    if not watching.there():
        pytest.skip(watching.HINT)
    home = promoted(tmp_path_factory.mktemp("watched"), "rentals", empty_store)
    with being_watched(home, tmp_path_factory.mktemp("prometheus"), "rentals") as seen:
        for seed in range(100, 130):
            seen.caller.predict(rentals_frame(100, seed))
        ask_everything(seen.caller)
        seen.settle()
        yield seen


def ask_everything(caller: Caller) -> None:
    """Go through every code path once."""
    flat = json.dumps(FLAT).encode()
    for route in ("/", "/docs", "/examples", "/openapi.json", "/model", "/version", "/ping", "/health"):
        assert caller.ask(route).status == 200, route
    for route in ("/explain", "/curves"):
        assert caller.ask(route, flat).status == 200, route
    for wrong in ({"area": "x"}, {"area": 1000.0}, {"quarter": "moon"}, {"area": None}, {"nothing": 1}):
        assert caller.ask("/predict", json.dumps({**FLAT, **wrong}).encode()).status == 422
    assert caller.ask("/predict", b"{").status == 400
    assert caller.ask("/predict", flat, Content_Type="text/plain").status == 415
    assert caller.ask("/invocations", b"{}").status == 422
    assert caller.ask("/nowhere", rule="unknown").status == 404
    said = caller.predict(rentals_frame(50, seed=2), "/predict?interval=0.8")
    caller.tell(said, np.array(said["predictions"]) + 30)
    caller.tell({"request_id": "0193f5c2a1b3-00-00000000"}, np.array([1.0]))  # of a request that nobody sent


def test_every_request_row_and_value_is_counted(watched: Watched) -> None:
    asked = watched.caller.requests
    found = watched.counts("housing_request_seconds_count", "route", "status")
    assert {key: count for key, count in found.items() if key[0] not in ("/healthz", "/readyz", "/metrics")} == asked
    assert watched.total("housing_interval_width_count_total") == len(watched.caller.widths)
    assert watched.total("housing_interval_width_sum_total") == pytest.approx(sum(watched.caller.widths), rel=1e-12)
    bins = watched.bins()
    sent = {(column, bin_): count for column, counts in bins.items() for bin_, count in counts.items() if count and column}
    assert watched.counts("housing_column_bin_total", "column", "bin") == sent
    assert watched.counts("housing_prediction_bin_total", "bin") == {(bin_,): count for bin_, count in bins[""].items() if count}
    refused = [("area", "type"), ("area", "bounds"), ("quarter", "category"), ("area", "missing"), ("other", "unknown")]
    assert watched.counts("housing_rejected_values_total", "column", "reason") == dict.fromkeys(refused, 1.0)


def test_every_panel_shows_something(watched: Watched) -> None:
    for path in generate.DASHBOARD_DIR.glob("*.json"):
        for panel in read_panels(path):
            for _, expr in panel_queries(panel, "5m"):
                assert_shown(watched.prometheus, f"{path.stem}: {panel['title']}", expr)


def test_dashboards_are_drawn(watched: Watched, tmp_path: Path) -> None:
    draw(watched.prometheus, tmp_path)
    drawn = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(drawn) == {f"dashboard-{path.stem}.png" for path in generate.DASHBOARD_DIR.glob("*.json")}
    assert all(10_000 < size < 150_000 for size in drawn.values()), drawn


def assert_shown(prometheus: Prometheus, panel: str, expr: str) -> None:
    """The query of a panel gives a number, soon."""
    wait_for(lambda: has_data(prometheus, expr), f"{panel}: {expr}")


@pytest.mark.parametrize("alert", alerts.read_alerts().values(), ids=lambda alert: alert.name)
def test_no_alert_is_blind(watched: Watched, alert: alerts.Alert) -> None:
    for vector in alert.expressions:
        assert has_data(watched.prometheus, vector), vector


def has_data(prometheus: Prometheus, expr: str) -> bool:
    """Whether there is a number, now."""
    return any(math.isfinite(series.values[0]) for series in prometheus.query(expr))


def test_the_index_is_what_numpy_says(watched: Watched) -> None:
    watched.settle()
    for name, (rule, from_rises, from_rows) in watched.indices().items():
        assert rule == pytest.approx(from_rises, abs=1e-6), name
        assert rule == pytest.approx(from_rows, abs=0.005), name


def test_a_killed_worker_changes_no_total(watched: Watched) -> None:
    watched.settle()
    names = (
        'sum by (__name__) ({__name__=~"housing_(rows|column_bin|prediction_bin|interval_width_count|rejected_values)_total"})'
    )
    before = watched.prometheus.query(names)
    victim, other = watched.caller.server.workers()
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len({*watched.caller.server.workers()} - {victim, other}) == 1, "another worker is there")
    for seed in range(8):  # both workers answer, from the file that the victim left and from the other's
        watched.caller.predict(rentals_frame(10, seed))
    watched.settle()
    rise = {one.labels["__name__"]: one.values[0] for one in watched.prometheus.query(names)}
    for series in before:
        rise[series.labels["__name__"]] -= series.values[0]
    columns = len(watched.bundle.schema.features)
    expected = {"rows": 80, "column_bin": 80 * columns, "prediction_bin": 80, "interval_width_count": 0, "rejected_values": 0}
    assert rise == {f"housing_{name}_total": value for name, value in expected.items()}
    counters = list(filter(COUNTER.fullmatch, watched.prometheus.get("label/__name__/values")))
    assert "housing_request_seconds_bucket" in counters
    assert {name for name in counters if watched.total(f"resets({name}[1h])")} == set()


def test_wrong_truths_raise_the_alert_of_live_error(watched: Watched) -> None:
    said = watched.caller.predict(rentals_frame(600, seed=3))
    predictions = np.array(said["predictions"])
    promised = watched.bundle.card["metrics"]["rmse"]
    watched.caller.tell(said, predictions + promised * np.resize([1, -1], len(predictions)))  # just as wrong as promised
    enough = 'version:housing_feedback:increase24h{version="1"} >= 600'
    wait_for(lambda: bool(watched.prometheus.query(enough)), "feedback is counted")
    watched.settle()
    assert not watched.raised(LIVE)
    said = watched.caller.predict(rentals_frame(600, seed=6))  # a row counts once
    watched.caller.tell(said, np.array(said["predictions"]) + 10 * promised)
    wait_for(lambda: bool(watched.raised(LIVE)), "the alert is raised")
    wait_for(lambda: bool(watched.told.told(LIVE)), "Alertmanager tells of it")
    assert watched.told.told(LIVE)[0]["version"] == "1"


def test_shifted_rows_raise_the_alert_of_their_column_and_unshifted_do_not(watched: Watched) -> None:
    watched.caller.predict(rentals_frame(1000, seed=4))
    watched.settle()
    assert watched.prometheus.query("version:housing_rows:increase >= 500")  # it might be raised
    assert not watched.raised(DRIFT) and not watched.raised(PREDICTED)
    shifted = rentals_frame(9000, seed=5)
    watched.caller.predict(shifted.assign(area=(shifted["area"] * 0.5 + 75).round(1)))  # the upper half of what is known
    wait_for(lambda: bool(watched.raised(DRIFT)), "the alert is raised")
    wait_for(lambda: bool(watched.told.told(DRIFT)), "Alertmanager tells of it")
    assert {one["column"] for one in watched.raised(DRIFT)} == {"area"}
    assert {one["column"] for one in watched.told.told(DRIFT)} == {"area"}
