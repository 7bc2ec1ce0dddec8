"""Each alert reaches a receiver through the real Prometheus and Alertmanager; panels about training and candidates have data.

To test a new alert, add its recipe to RECIPES: what a target must show so that it fires.
"""

import json
import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana import alerts, generate
from grafana.prometheus_api import Prometheus, panel_queries, read_panels
from housing.operations.retraining import RETRAIN_TAGS, RETRAINED_TAG
from housing.operations.training_metrics import METRICS, export_metrics
from housing.tracking import store as tracking
from tests.support import prometheus as prometheus_support
from tests.support.dashboard_pictures import draw
from tests.support.exposition import Exposition, exposing
from tests.support.tables import config, rentals_frame
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("alert_delivery")]

DOWN, GONE = "HousingDown", "127.0.0.1:1"  # no program listens at port 1
EIGHT_DAYS = 8 * 86_400
VERSION = 'version="1"'
REQUEST = 'route="/predict", status="500"'
EXPORTED = ("training", "candidate")  # dashboards whose numbers no server has


@dataclass(frozen=True)
class Recipe:
    """What raises an alert: gauges, and counters with their growth per second. Both can be empty if the scene raises it."""

    gauges: dict[str, float] = field(default_factory=dict)
    counters: dict[str, float] = field(default_factory=dict)


ROWS = {f"housing_rows_total{{{VERSION}}}": 1000.0}
RECIPES = {
    DOWN: Recipe(),  # at the end the only server stops
    "HousingInstanceDown": Recipe(),  # a second server does not exist
    "HousingNotReady": Recipe(gauges={"housing_ready": 0.0}),
    "HousingErrors": Recipe(counters={f"housing_request_seconds_count{{{REQUEST}}}": 10.0}),
    "HousingSlow": Recipe(
        counters={
            f'housing_request_seconds_bucket{{{REQUEST}, le="{le}"}}': rate
            for le, rate in {"0.1": 0.0, "0.5": 10.0, "+Inf": 10.0}.items()
        }
    ),
    "HousingColumnDrift": Recipe(
        gauges={f'housing_column_bin_share{{{VERSION}, column="area", bin="0{bin_}"}}': 0.5 for bin_ in range(2)},
        counters=ROWS
        | {f'housing_column_bin_total{{{VERSION}, column="area", bin="0{bin_}"}}': 1000.0 * bin_ for bin_ in range(2)},
    ),
    "HousingWeightedDrift": Recipe(gauges={f'housing_column_contribution_ratio{{{VERSION}, column="area"}}': 1.0}),  # and drift
    "HousingMultivariateDrift": Recipe(
        gauges={
            f"housing_multivariate_drift_z{{{VERSION}}}": 9.0,
            f'housing_multivariate_drift_column_auc{{{VERSION}, column="area"}}': 0.2,
        },
        counters=ROWS,
    ),
    "HousingPredictionDrift": Recipe(
        gauges={f'housing_prediction_bin_share{{{VERSION}, bin="0{bin_}"}}': 0.5 for bin_ in range(2)},
        counters=ROWS | {f'housing_prediction_bin_total{{{VERSION}, bin="0{bin_}"}}': 1000.0 * bin_ for bin_ in range(2)},
    ),
    "HousingLiveError": Recipe(
        gauges={f"housing_model_validation_rmse{{{VERSION}}}": 1.0},
        counters={
            f"housing_feedback_matched_total{{{VERSION}}}": 1000.0,
            f"housing_feedback_squared_error_total{{{VERSION}}}": 9000.0,
        },
    ),
    "HousingEstimatedError": Recipe(
        gauges={
            f"housing_estimated_rmse{{{VERSION}}}": 2.0,
            f"housing_estimated_rmse_standard_error{{{VERSION}}}": 0.1,
            f"housing_held_out_rmse{{{VERSION}}}": 1.0,
        },
        counters=ROWS,
    ),
    "HousingModelStale": Recipe(
        gauges={f"housing_model_created_seconds{{{VERSION}}}": 0.0, f"housing_model_info{{{VERSION}}}": 1.0}
    ),
    "HousingModelRejected": Recipe(gauges={"housing_version_rejected": 1.0}),
    "HousingLogDropped": Recipe(counters={"housing_log_dropped_total": 1.0}),
    "HousingFeedbackMalformed": Recipe(counters={"housing_feedback_malformed_lines_total": 1.0}),
    "HousingFeedbackDatabaseDamaged": Recipe(gauges={"housing_feedback_damaged_databases_total": 1.0}),
    "HousingRetrainingOverdue": Recipe(),  # the exported file is about a table that changed eight days ago
}
SHADOW = {
    f"housing_shadow_{name}_total{{{VERSION}}}": 10.0
    for name in (
        *("rows", "refused_rows", "absolute_difference", "squared_difference", "cpu_seconds"),
        *("labels", "squared_error", "answer_squared_error"),
    )
}
SHADOW_STATE = {"housing_shadow_unread_bytes": 0.0, "housing_shadow_version_rejected": 0.0}
RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load(alerts.ALERTS_FILE.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
}


@dataclass(frozen=True)
class Scene:
    """Prometheus and Alertmanager, the webhook behind them, and what stops the only server."""

    prometheus: Prometheus
    receiver: prometheus_support.Receiver
    server: ExitStack

    def notifications(self, alert: str) -> list[dict[str, Any]]:
        """Return each notification that an alert fires."""
        sent = [notification for post in self.receiver.posts for notification in post["alerts"]]
        return [item for item in sent if item["status"] == "firing" and item["labels"]["alertname"] == alert]

    def is_received(self, alert: str) -> bool:
        """Return whether the receiver was told that an alert fires."""
        return bool(self.notifications(alert))


@pytest.fixture(scope="module")
def exported(served_home: Path) -> str:
    """The exported metrics of a table that changed eight days ago, after its last run."""
    cfg = config("export_metrics", "data=rentals")
    tracking.connect(cfg.mlflow).runs.open("rentals", "sweep", {**RETRAIN_TAGS, RETRAINED_TAG: "PROMOTE"}).close("FINISHED")
    table, changed_at = served_home / "data" / "rentals.csv", time.time() - EIGHT_DAYS
    rentals_frame(601).to_csv(table, index=False)
    os.utime(table, (changed_at, changed_at))
    return export_metrics(cfg).path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, exported: str) -> Iterator[Scene]:
    """A server whose numbers raise every alert, one that does not exist, and the exported metrics."""
    if not prometheus_support.is_installed():
        pytest.skip(prometheus_support.HINT)
    folder = prometheus_support.fast_config(tmp_path_factory.mktemp("prometheus"))
    gauges = {series: value for recipe in RECIPES.values() for series, value in recipe.gauges.items()}
    counters = {series: rate for recipe in RECIPES.values() for series, rate in recipe.counters.items()}
    with (
        ExitStack() as server,
        exposing(Exposition(text=exported)) as node,
        prometheus_support.receiver() as receiver,
        prometheus_support.alertmanager(folder, receiver.url) as alertmanager,
    ):
        address = server.enter_context(exposing(Exposition(gauges | SHADOW_STATE, counters | SHADOW)))
        with prometheus_support.prometheus(folder, address, alertmanager, GONE, node=node) as prometheus:
            yield Scene(prometheus, receiver, server)


def test_each_alert_has_a_recipe() -> None:
    assert set(RECIPES) == set(RULES)


@pytest.mark.parametrize("name", EXPORTED)
def test_every_panel_about_training_and_candidates_has_data(scene: Scene, name: str) -> None:
    wait_for_data(scene, name)


def wait_for_data(scene: Scene, name: str) -> None:
    """Wait until each query of a dashboard has a value."""
    for panel in read_panels(generate.DASHBOARD_DIR / f"{name}.json"):
        for _, expr in panel_queries(panel, "5m"):
            wait_for(partial(has_data, scene.prometheus, expr), f"{panel['title']}: {expr}")


def test_dashboards_about_training_and_candidates_are_drawn(scene: Scene, tmp_path: Path) -> None:
    for name in EXPORTED:
        wait_for_data(scene, name)
    draw(scene.prometheus, tmp_path, [generate.DASHBOARD_DIR / f"{name}.json" for name in EXPORTED])
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {f"dashboard-{name}.png" for name in EXPORTED}
    assert all(size > 10_000 for size in sizes.values()), sizes


def has_data(prometheus: Prometheus, expr: str) -> bool:
    """Return whether a query returns a number that is no NaN."""
    return not all(math.isnan(series.values[0]) for series in prometheus.query(expr))


def test_every_alert_reaches_the_receiver(scene: Scene) -> None:
    for name in RULES.keys() - {DOWN}:
        wait_for(partial(scene.is_received, name), f"{name} is received")
    assert not scene.is_received(DOWN)
    scene.server.close()
    wait_for(partial(scene.is_received, DOWN), f"{DOWN} is received")
    for name, rule in RULES.items():
        notification = scene.notifications(name)[0]
        assert notification["labels"].items() >= rule["labels"].items(), name
        assert notification["annotations"]["runbook_url"] == rule["annotations"]["runbook_url"]
        assert set(notification["annotations"]) == {"summary", "description", "runbook_url"}
        for text in notification["annotations"].values():
            assert text and not re.search(r"\{\{|<no value>|error expanding", text), text
    assert scene.notifications("HousingColumnDrift")[0]["labels"]["column"] == "area"
    assert scene.notifications("HousingInstanceDown")[0]["labels"]["instance"] == GONE
    assert scene.notifications("HousingRetrainingOverdue")[0]["labels"]["table"] == "rentals"


def test_the_dashboard_about_training_names_metrics_that_are_exported() -> None:
    queries = json.dumps(read_panels(generate.DASHBOARD_DIR / "training.json"))
    named = set(re.findall(r"(?<!:)\bhousing_[a-z_]+", queries))
    assert named and named <= set(METRICS)
