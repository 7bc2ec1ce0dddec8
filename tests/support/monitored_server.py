"""A server monitored by Prometheus, and a client that records its requests."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from grafana.prometheus_api import Prometheus
from housing.bundle.bundle import Bundle
from housing.schema.column import Column, Matrix, Vector
from housing.schema.histogram import bin_counts
from housing.server_files import releases
from tests.support import prometheus as prometheus_support
from tests.support.server import Answer, Server, serving
from tests.support.waiting import wait_for

FLOOR = 0.0001  # minimum share of a bin, as in prometheus/rules.yml


WINDOW = "1h"


ALERT_SECONDS = 3  # seconds until an alert fires whose rule is evaluated every second and must hold for one
MONITOR = "serve.monitor=true", "serve.monitor_window_rows=500"


@dataclass
class Caller:
    """A client that records its requests and the predictions."""

    server: Server
    target: str
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)  # by route and status
    frames: list[pd.DataFrame] = field(default_factory=list)
    predictions: list[float] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)

    def ask(self, route: str, body: bytes | None = None, rule: str = "", **headers: str) -> Answer:
        """Send a request and count it. `rule` is the label of the route in the metrics, if it differs."""
        answer = self.server.ask(route, body, **headers)
        self.requests[rule or route.partition("?")[0], str(answer.status)] += 1
        return answer

    def predict(self, frame: pd.DataFrame, route: str = "/predict") -> Any:
        """Request predictions for the rows of a frame."""
        rows = frame.drop(columns=self.target)
        body = {"columns": list(rows), "rows": rows.astype(object).where(rows.notna(), None).to_numpy().tolist()}
        answer = self.ask(route, json.dumps(body).encode())
        assert answer.status == 200, answer
        response_body = answer.json
        self.frames.append(frame)
        self.predictions += response_body["predictions"]
        self.widths += [
            upper - lower for lower, upper in zip(response_body.get("lower", ()), response_body.get("upper", ()), strict=True)
        ]
        return response_body

    def send_feedback(self, response_body: Any, targets: Vector) -> None:
        """Send the true values of the rows of a response."""
        feedback = [
            {"request_id": response_body["request_id"], "row": row, "value": float(truth)} for row, truth in enumerate(targets)
        ]
        assert self.ask("/feedback", json.dumps({"feedback": feedback}).encode()).status == 202


@dataclass(frozen=True)
class MonitoredServer:
    """A server, its client, and the Prometheus and Alertmanager that monitor it."""

    caller: Caller
    prometheus: Prometheus
    receiver: prometheus_support.Receiver
    bundle: Bundle

    def total(self, selector: str) -> float:
        """Return the current sum of the selected counters in Prometheus."""
        return sum(series.values[0] for series in self.prometheus.query(selector))

    def counts(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Return a counter's values by labels, without zeros."""
        current_values = {
            tuple(series.labels[label] for label in labels): series.values[0] for series in self.prometheus.query(name)
        }
        return {key: value for key, value in current_values.items() if value}

    def firing(self, alert: str) -> list[dict[str, str]]:
        """Return the labels of each instance of an alert that is firing now."""
        return [series.labels for series in self.prometheus.query(f'ALERTS{{alertname="{alert}", alertstate="firing"}}')]

    def settle(self) -> None:
        """Wait until Prometheus has scraped all rows, evaluated its rules, and had time to fire an alert."""
        wait_for(lambda: self.total("housing_rows_total") == len(self.caller.predictions), "all rows are scraped")
        scraped_at = time.time()
        wait_for(lambda: self.rules_evaluated_at() > scraped_at + ALERT_SECONDS, "rules are evaluated")

    def rules_evaluated_at(self) -> float:
        """Return the time of the last evaluation of the drift rules."""
        current_values = self.prometheus.query("timestamp(version_column:housing_column:psi)")
        return max((series.values[0] for series in current_values), default=0.0)

    def bins(self) -> dict[str, dict[str, int]]:
        """Return the bin counts of the sent rows, by numpy."""
        matrix = self.bundle.schema.encode_frame(pd.concat(self.caller.frames))
        return count_bins(self.bundle, matrix, np.array(self.caller.predictions))

    def indices(self) -> dict[str, tuple[float, float, float]]:
        """Return the stability index of each column and of the predictions.

        Three computations: the recording rule, numpy on the same increases, and numpy on the sent rows.
        """
        at = self.rules_evaluated_at()
        column = f"sum by (column, bin) (increase(housing_column_bin_total[{WINDOW}]))"
        increases = {
            (series.labels["column"], series.labels["bin"]): series.values[0] for series in self.prometheus.query(column, at)
        }
        prediction = f"sum by (bin) (increase(housing_prediction_bin_total[{WINDOW}]))"
        increases |= {("", series.labels["bin"]): series.values[0] for series in self.prometheus.query(prediction, at)}
        rule = f'{{__name__=~"version_column:housing_column:psi|version:housing_prediction:psi", window="{WINDOW}"}}'
        current_values = {series.labels.get("column", ""): series.values[0] for series in self.prometheus.query(rule, at)}
        n_sent, training = self.bins(), training_shares(self.bundle)
        return {
            name: (
                current_values[name],
                stability_index(np.array([increases[name, bin_] for bin_ in bins]), training[name]),
                stability_index(np.array(list(bins.values())), training[name]),
            )
            for name, bins in n_sent.items()
        }


def count_bins(bundle: Bundle, matrix: Matrix, predictions: Vector) -> dict[str, dict[str, int]]:
    """Count rows per bin of each column, and of the predictions under the key ""."""
    columns = [(column, matrix[:, position]) for position, column in enumerate(bundle.schema.features)]
    edges = np.array(bundle.reference["prediction"]["edges"])
    return {
        **{column.name: _count_column_bins(bundle, column, values) for column, values in columns},
        "": _number_bins(bin_counts(predictions, edges)),
    }


def _count_column_bins(bundle: Bundle, column: Column, values: Vector) -> dict[str, int]:
    counts = bin_counts(values, np.array(bundle.reference["columns"][column.name]["edges"]))
    levels = ("false", "true") if column.type == "bool" else column.categories
    named = dict(zip(levels, counts.tolist(), strict=True)) if levels else _number_bins(counts)
    return {**named, **({"missing": int(np.isnan(values).sum())} if column.nullable else {})}


def _number_bins(counts: Any) -> dict[str, int]:
    return {f"{position:02d}": int(count) for position, count in enumerate(counts)}


def training_shares(bundle: Bundle) -> dict[str, Vector]:
    """Return the training shares per bin of each column, and of the predictions under the key ""."""
    columns = {column.name: column.nullable for column in bundle.schema.features}
    reference = bundle.reference["columns"]
    shares = {
        name: [*reference[name]["shares"], *([reference[name]["missing"]] if missing else [])]
        for name, missing in columns.items()
    }
    return {
        name: np.array(column_shares) for name, column_shares in {**shares, "": bundle.reference["prediction"]["shares"]}.items()
    }


def stability_index(counts: Vector, training: Vector) -> float:
    """Compute the population stability index with numpy."""
    current, training_shares_ = np.maximum(counts / counts.sum(), FLOOR), np.maximum(training, FLOOR)
    return float(np.sum((current - training_shares_) * np.log(current / training_shares_)))


@contextmanager
def monitored(
    home: Path, directory: Path, table: str, *overrides: str, alias: str = "staging", node: str | None = None
) -> Iterator[MonitoredServer]:
    """Serve the version of a table at an alias with two workers, monitored from counters at 0 on, beside a node exporter."""
    folder = prometheus_support.fast_config(directory)
    with (
        serving(
            home,
            f"data={table}",
            "serve.workers=2",
            "serve.feedback_timeout_seconds=4",
            f"serve.alias={alias}",
            *MONITOR,
            *overrides,
        ) as server,
        prometheus_support.receiver() as receiver,
        prometheus_support.alertmanager(folder, receiver.url) as alertmanager,
        prometheus_support.prometheus(folder, server.url.removeprefix("http://"), alertmanager, node=node) as prometheus,
    ):
        wait_for(lambda: server.answers("/readyz"), "the model is published")
        wait_for(
            lambda: bool(prometheus.query('housing_feedback_matched_total{version="1"} == 0')), "all counters are scraped at 0"
        )
        used = releases.current_release(home / "serving" / f"{table}-{alias}")
        assert used is not None
        bundle = Bundle.read(used / releases.BUNDLE)
        yield MonitoredServer(Caller(server, bundle.schema.target.name), prometheus, receiver, bundle)
