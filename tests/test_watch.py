"""Watched for real: a server of two workers, Prometheus and Alertmanager with the project's rules and alerts."""

import json
import math
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import watching
from conftest import FLAT, Answer, Server, promoted, rentals_frame, serving, wait_for
from grafana import alerts, generate
from grafana.asking import Prometheus, panels, queries
from housing.bundle import Bundle
from housing.schema import Vector, binned
from server import published

pytestmark = pytest.mark.long

FLOOR = 0.0001  # of a share, as in prometheus/rules.yml
DRIFT, LIVE, PREDICTED = "HousingColumnDrift", "HousingLiveError", "HousingPredictionDrift"
COUNTER = re.compile("housing_.+_(total|count|bucket)")


@dataclass
class Caller:
    """Asks the server, and keeps in mind what it asked for."""

    server: Server
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)  # by route and status
    frames: list[pd.DataFrame] = field(default_factory=list)
    predictions: list[float] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)

    def ask(self, route: str, body: bytes | None = None, rule: str = "", **headers: str) -> Answer:
        """Ask a route; `rule` is what its counter calls it, where that is another name."""
        answer = self.server.ask(route, body, **headers)
        self.requests[rule or route.partition("?")[0], str(answer.status)] += 1
        return answer

    def predict(self, frame: pd.DataFrame, route: str = "/predict") -> Any:
        """Ask for predictions of the rows of a frame."""
        rows = frame.drop(columns="rent").astype(object).where(frame.notna().drop(columns="rent"), None)
        body = {"columns": list(rows), "rows": rows.to_numpy().tolist()}
        answer = self.ask(route, json.dumps(body).encode())
        assert answer.status == 200, answer
        said = answer.json
        self.frames.append(frame)
        self.predictions += said["predictions"]
        self.widths += [upper - lower for lower, upper in zip(said.get("lower", ()), said.get("upper", ()), strict=True)]
        return said

    def tell(self, said: Any, truths: Vector) -> None:
        """Say what turned out to be true of the rows of an answer."""
        told = [{"request_id": said["request_id"], "row": row, "value": float(truth)} for row, truth in enumerate(truths)]
        assert self.ask("/feedback", json.dumps({"feedback": told}).encode()).status == 202

    def ask_everything(self) -> None:
        """Go through every code path once."""
        flat = json.dumps(FLAT).encode()
        for route in ("/", "/docs", "/examples", "/openapi.json", "/model", "/version", "/ping", "/health"):
            assert self.ask(route).status == 200, route
        for route in ("/explain", "/curves"):
            assert self.ask(route, flat).status == 200, route
        for wrong in ({"area": "x"}, {"area": 1000.0}, {"quarter": "moon"}, {"area": None}, {"nothing": 1}):
            assert self.ask("/predict", json.dumps({**FLAT, **wrong}).encode()).status == 422
        assert self.ask("/predict", b"{").status == 400
        assert self.ask("/predict", flat, Content_Type="text/plain").status == 415
        assert self.ask("/invocations", b"{}").status == 422
        assert self.ask("/nowhere", rule="unknown").status == 404
        said = self.predict(rentals_frame(50, seed=2), "/predict?interval=0.8")
        self.tell(said, np.array(said["predictions"]) + 30)
        self.tell({"request_id": "0193f5c2a1b3-00-00000000"}, np.array([1.0]))  # of a request that nobody sent


@dataclass(frozen=True)
class Watched:
    """A server, what was asked of it, and who watches it."""

    caller: Caller
    prometheus: Prometheus
    told: watching.Receiver
    bundle: Bundle

    def total(self, selector: str) -> float:
        """The sum of counters as Prometheus knows them now."""
        return sum(series.values[0] for series in self.prometheus.now(selector))

    def counts(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """A counter's values by labels; what is still 0 is left out."""
        found = {tuple(one.labels[label] for label in labels): one.values[0] for one in self.prometheus.now(name)}
        return {key: value for key, value in found.items() if value}

    def raised(self, alert: str) -> list[dict[str, str]]:
        """The labels with which an alert is raised now."""
        return [one.labels for one in self.prometheus.now(f'ALERTS{{alertname="{alert}", alertstate="firing"}}')]

    def settle(self) -> None:
        """Wait until Prometheus has seen all rows, and has computed its rules after that."""
        wait_for(lambda: self.total("housing_rows_total") == len(self.caller.predictions), "all rows are scraped", 30)
        seen = time.time()
        wait_for(lambda: self.computed() > seen + 1, "rules are computed", 30)

    def computed(self) -> float:
        """When the drift rules were computed last."""
        found = self.prometheus.now("timestamp(version_column:housing_column:psi)")
        return max((series.values[0] for series in found), default=0.0)

    def bins(self) -> dict[str, dict[str, int]]:
        """The rows that were sent, counted by numpy: each column's bins, and under "" those of the predictions."""
        matrix = self.bundle.schema.encode_frame(pd.concat(self.caller.frames))
        columns = [(column, matrix[:, place]) for place, column in enumerate(self.bundle.schema.features)]
        counted = {column.name: self._count(column, values) for column, values in columns}
        edges = np.array(self.bundle.reference["prediction"]["edges"])
        return {**counted, "": _numbered(binned(np.array(self.caller.predictions), edges))}

    def _count(self, column: Any, values: Vector) -> dict[str, int]:
        counts = binned(values, np.array(self.bundle.reference["columns"][column.name]["edges"]))
        levels = ("false", "true") if column.type == "bool" else column.categories
        named = dict(zip(levels, counts.tolist(), strict=True)) if levels else _numbered(counts)
        return {**named, **({"missing": int(np.isnan(values).sum())} if column.nullable else {})}


def _numbered(counts: Any) -> dict[str, int]:
    return {f"{place:02d}": int(count) for place, count in enumerate(counts)}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Watched]:
    """A promoted model of the rentals, served by two workers and watched, after 3,000 rows like those of training."""
    if not watching.there():
        pytest.skip(watching.HINT)
    home, place = promoted(tmp_path_factory.mktemp("watched"), "rentals", empty_store), tmp_path_factory.mktemp("prometheus")
    folder = watching.hurried(place)
    with (
        serving(home, "serve.workers=2", "serve.feedback_patience=4") as server,
        watching.receiver() as receiver,
        watching.alertmanager(folder, receiver.url) as alertmanager,
        watching.prometheus(folder, server.url.removeprefix("http://"), alertmanager) as prometheus,
    ):
        wait_for(lambda: server.answers("/readyz"), "the model is published")
        wait_for(lambda: bool(prometheus.now('housing_feedback_total{version="1"} == 0')), "everything was seen at 0")
        used = published.current(home / "serving" / "rentals-staging")
        assert used is not None
        seen = Watched(Caller(server), prometheus, receiver, Bundle.read(used / published.BUNDLE))
        for seed in range(100, 130):
            seen.caller.predict(rentals_frame(100, seed))
        seen.caller.ask_everything()
        seen.settle()
        yield seen


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
    counted = watched.counts("housing_refused_values_total", "column", "reason")
    assert {key: counted[key] for key in refused} == {
        **dict.fromkeys(refused, 1.0),
        ("area", "missing"): counted["area", "missing"],
    }


def test_every_panel_shows_something(watched: Watched) -> None:
    for path in generate.FOLDER.glob("*.json"):
        for panel in panels(path):
            for _, expr in queries(panel, "5m"):
                assert_shown(watched.prometheus, f"{path.stem}: {panel['title']}", expr)


def assert_shown(prometheus: Prometheus, panel: str, expr: str) -> None:
    """The query of a panel gives a number, soon."""
    wait_for(lambda: has_data(prometheus, expr), f"{panel}: {expr}", 15)


@pytest.mark.parametrize("alert", alerts.read().values(), ids=lambda alert: alert.name)
def test_no_alert_is_blind(watched: Watched, alert: alerts.Alert) -> None:
    for vector in alert.vectors:
        assert has_data(watched.prometheus, vector), vector


def has_data(prometheus: Prometheus, expr: str) -> bool:
    """Whether there is a number, now."""
    return any(math.isfinite(series.values[0]) for series in prometheus.now(expr))


def test_the_index_is_what_numpy_says(watched: Watched) -> None:
    watched.settle()
    at = watched.computed()
    column = 'sum by (column, bin) (increase(housing_column_bin_total{version="1"}[1h]))'
    rises = {(one.labels["column"], one.labels["bin"]): one.values[0] for one in watched.prometheus.now(column, at)}
    prediction = 'sum by (bin) (increase(housing_prediction_bin_total{version="1"}[1h]))'
    rises |= {("", one.labels["bin"]): one.values[0] for one in watched.prometheus.now(prediction, at)}
    recorded = '{__name__=~"version_column:housing_column:psi|version:housing_prediction:psi", window="1h"}'
    found = {one.labels.get("column", ""): one.values[0] for one in watched.prometheus.now(recorded, at)}
    sent, training = watched.bins(), training_shares(watched.bundle)
    assert set(found) == set(sent)
    for name, psi in found.items():
        risen = np.array([rises[name, bin_] for bin_ in sent[name]])
        assert psi == pytest.approx(index(risen, training[name]), abs=1e-6), name
        assert psi == pytest.approx(index(np.array(list(sent[name].values())), training[name]), abs=0.005), name


def training_shares(bundle: Bundle) -> dict[str, Vector]:
    """The training shares by column, in the order of bins; under "" those of the predictions."""
    columns = {column.name: column.nullable for column in bundle.schema.features}
    known = bundle.reference["columns"]
    shares = {name: [*known[name]["shares"], *([known[name]["missing"]] if missing else [])] for name, missing in columns.items()}
    return {name: np.array(each) for name, each in {**shares, "": bundle.reference["prediction"]["shares"]}.items()}


def index(counts: Vector, training: Vector) -> float:
    """The population stability index, by numpy."""
    now, before = np.maximum(counts / counts.sum(), FLOOR), np.maximum(training, FLOOR)
    return float(np.sum((now - before) * np.log(now / before)))


def test_a_killed_worker_changes_no_total(watched: Watched) -> None:
    watched.settle()
    names = 'sum by (__name__) ({__name__=~"housing_(rows|column_bin|prediction_bin|interval_width_count|refused_values)_total"})'
    before = watched.prometheus.now(names)
    victim, other = watched.caller.server.workers()
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len({*watched.caller.server.workers()} - {victim, other}) == 1, "another worker is there")
    for seed in range(8):  # both workers answer, from the file that the victim left and from the other's
        watched.caller.predict(rentals_frame(10, seed))
    watched.settle()
    rise = {one.labels["__name__"]: one.values[0] for one in watched.prometheus.now(names)}
    for series in before:
        rise[series.labels["__name__"]] -= series.values[0]
    columns = len(watched.bundle.schema.features)
    expected = {"rows": 80, "column_bin": 80 * columns, "prediction_bin": 80, "interval_width_count": 0, "refused_values": 0}
    assert rise == {f"housing_{name}_total": value for name, value in expected.items()}
    counters = list(filter(COUNTER.fullmatch, watched.prometheus.get("label/__name__/values")))
    assert "housing_request_seconds_bucket" in counters
    assert {name for name in counters if watched.total(f"resets({name}[1h])")} == set()


def test_wrong_truths_raise_the_alert_of_live_error(watched: Watched) -> None:
    said = watched.caller.predict(rentals_frame(400, seed=3))
    predictions = np.array(said["predictions"])
    promised = watched.bundle.card["metrics"]["rmse"]
    watched.caller.tell(said, predictions + promised * np.resize([1, -1], len(predictions)))  # just as wrong as promised
    enough = 'version:housing_feedback:increase24h{version="1"} >= 400'
    wait_for(lambda: bool(watched.prometheus.now(enough)), "feedback is counted", 30)
    watched.settle()
    assert not watched.raised(LIVE)
    watched.caller.tell(said, predictions + 10 * promised)
    wait_for(lambda: bool(watched.raised(LIVE)), "the alert is raised", 30)
    wait_for(lambda: bool(watched.told.told(LIVE)), "Alertmanager tells of it", 30)
    assert watched.told.told(LIVE)[0]["version"] == "1"


def test_shifted_rows_raise_the_alert_of_their_column_and_unshifted_do_not(watched: Watched) -> None:
    watched.caller.predict(rentals_frame(1000, seed=4))
    watched.settle()
    assert watched.prometheus.now("version:housing_rows:increase >= 500")  # it might be raised
    assert not watched.raised(DRIFT) and not watched.raised(PREDICTED)
    shifted = rentals_frame(9000, seed=5)
    watched.caller.predict(shifted.assign(area=(shifted["area"] * 0.5 + 75).round(1)))  # the upper half of what is known
    wait_for(lambda: bool(watched.raised(DRIFT)), "the alert is raised", 30)
    wait_for(lambda: bool(watched.told.told(DRIFT)), "Alertmanager tells of it", 30)
    assert {one["column"] for one in watched.raised(DRIFT)} == {"area"}
    assert {one["column"] for one in watched.told.told(DRIFT)} == {"area"}
