"""A server that is watched, and somebody who asks it and keeps in mind what was asked."""

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
from server.core import releases
from tests.support import prometheus as watching
from tests.support.server import Answer, Server, serving
from tests.support.waiting import wait_for

FLOOR = 0.0001  # of a share, as in prometheus/rules.yml


WINDOW = "1h"


RAISED = 3  # seconds after which an alert is raised whose rule is computed each second and must hold for one


@dataclass
class Caller:
    """Asks the server, and keeps in mind what it asked for."""

    server: Server
    target: str
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
        rows = frame.drop(columns=self.target)
        body = {"columns": list(rows), "rows": rows.astype(object).where(rows.notna(), None).to_numpy().tolist()}
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


@dataclass(frozen=True)
class Watched:
    """A server, what was asked of it, and who watches it."""

    caller: Caller
    prometheus: Prometheus
    told: watching.Receiver
    bundle: Bundle

    def total(self, selector: str) -> float:
        """The sum of counters as Prometheus knows them now."""
        return sum(series.values[0] for series in self.prometheus.query(selector))

    def counts(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """A counter's values by labels; what is still 0 is left out."""
        found = {tuple(one.labels[label] for label in labels): one.values[0] for one in self.prometheus.query(name)}
        return {key: value for key, value in found.items() if value}

    def raised(self, alert: str) -> list[dict[str, str]]:
        """The labels with which an alert is raised now."""
        return [one.labels for one in self.prometheus.query(f'ALERTS{{alertname="{alert}", alertstate="firing"}}')]

    def settle(self) -> None:
        """Wait until Prometheus has seen all rows, has computed its rules after that, and would have raised an alert."""
        wait_for(lambda: self.total("housing_rows_total") == len(self.caller.predictions), "all rows are scraped")
        seen = time.time()
        wait_for(lambda: self.computed() > seen + RAISED, "rules are computed")

    def computed(self) -> float:
        """When the drift rules were computed last."""
        found = self.prometheus.query("timestamp(version_column:housing_column:psi)")
        return max((series.values[0] for series in found), default=0.0)

    def bins(self) -> dict[str, dict[str, int]]:
        """The rows that were sent, counted by numpy."""
        matrix = self.bundle.schema.encode_frame(pd.concat(self.caller.frames))
        return counted(self.bundle, matrix, np.array(self.caller.predictions))

    def indices(self) -> dict[str, tuple[float, float, float]]:
        """Each column's stability index, and the predictions': by the rule, by numpy on the same rises, and on the rows sent."""
        at = self.computed()
        column = f"sum by (column, bin) (increase(housing_column_bin_total[{WINDOW}]))"
        rises = {(one.labels["column"], one.labels["bin"]): one.values[0] for one in self.prometheus.query(column, at)}
        prediction = f"sum by (bin) (increase(housing_prediction_bin_total[{WINDOW}]))"
        rises |= {("", one.labels["bin"]): one.values[0] for one in self.prometheus.query(prediction, at)}
        rule = f'{{__name__=~"version_column:housing_column:psi|version:housing_prediction:psi", window="{WINDOW}"}}'
        found = {one.labels.get("column", ""): one.values[0] for one in self.prometheus.query(rule, at)}
        sent, training = self.bins(), training_shares(self.bundle)
        return {
            name: (
                found[name],
                index(np.array([rises[name, bin_] for bin_ in bins]), training[name]),
                index(np.array(list(bins.values())), training[name]),
            )
            for name, bins in sent.items()
        }


def counted(bundle: Bundle, matrix: Matrix, predictions: Vector) -> dict[str, dict[str, int]]:
    """Count rows by numpy: each column's bins, and under "" those of the predictions."""
    columns = [(column, matrix[:, place]) for place, column in enumerate(bundle.schema.features)]
    edges = np.array(bundle.reference["prediction"]["edges"])
    return {
        **{column.name: _counted(bundle, column, values) for column, values in columns},
        "": _numbered(bin_counts(predictions, edges)),
    }


def _counted(bundle: Bundle, column: Column, values: Vector) -> dict[str, int]:
    counts = bin_counts(values, np.array(bundle.reference["columns"][column.name]["edges"]))
    levels = ("false", "true") if column.type == "bool" else column.categories
    named = dict(zip(levels, counts.tolist(), strict=True)) if levels else _numbered(counts)
    return {**named, **({"missing": int(np.isnan(values).sum())} if column.nullable else {})}


def _numbered(counts: Any) -> dict[str, int]:
    return {f"{place:02d}": int(count) for place, count in enumerate(counts)}


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


@contextmanager
def watched(home: Path, place: Path, table: str) -> Iterator[Watched]:
    """Serve the promoted model of a table with two workers, watched, for as long as the block lasts; everything was seen at 0."""
    folder = watching.hurried(place)
    with (
        serving(home, f"data={table}", "serve.workers=2", "serve.feedback_timeout_seconds=4") as server,
        watching.receiver() as receiver,
        watching.alertmanager(folder, receiver.url) as alertmanager,
        watching.prometheus(folder, server.url.removeprefix("http://"), alertmanager) as prometheus,
    ):
        wait_for(lambda: server.answers("/readyz"), "the model is published")
        wait_for(lambda: bool(prometheus.query('housing_feedback_matched_total{version="1"} == 0')), "everything was seen at 0")
        used = releases.current_release(home / "serving" / f"{table}-staging")
        assert used is not None
        bundle = Bundle.read(used / releases.BUNDLE)
        yield Watched(Caller(server, bundle.schema.target.name), prometheus, receiver, bundle)
