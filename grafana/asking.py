"""The panels of a dashboard's file, and what Prometheus answers to their queries."""

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIABLE = re.compile(r"\$(\w+)")
LABEL = re.compile(r"{{(\w+)}}")


@dataclass(frozen=True)
class Series:
    """One series of an answer: its labels, and its values by time (unix seconds)."""

    labels: dict[str, str]
    times: list[float]
    values: list[float]

    def display_name(self, legend: str) -> str:
        """Give its name: the legend with the labels' values."""
        return LABEL.sub(lambda found: self.labels.get(found[1], ""), legend)


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def query(self, expr: str, time: float | None = None) -> list[Series]:
        """Ask for the values now, or at a time."""
        moment = {} if time is None else {"time": repr(time)}
        found = self.get("query", query=expr, **moment)["result"]
        return [Series(one["metric"], [one["value"][0]], [float(one["value"][1])]) for one in found]

    def query_range(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        """Ask for the values at every step. Where nothing is known (0 of 0 requests, say), there is none."""
        found = self.get("query_range", query=expr, start=repr(start), end=repr(end), step=repr(step))["result"]
        known = [(one["metric"], [(at, float(value)) for at, value in one["values"] if value != "NaN"]) for one in found]
        return [Series(labels, *map(list, zip(*points, strict=True))) for labels, points in known if points]

    def get(self, route: str, **parameters: str) -> Any:
        """Ask a route of the API; give the data of the answer. Raises urllib.error.HTTPError for a query that is none."""
        with urllib.request.urlopen(f"{self.url}/api/v1/{route}?{urllib.parse.urlencode(parameters)}", timeout=30) as answer:
            return json.load(answer)["data"]


def read_panels(dashboard: Path) -> list[dict[str, Any]]:
    """Give the panels of a dashboard's file, headings among them, from top to bottom."""
    found: list[dict[str, Any]] = json.loads(dashboard.read_text(encoding="utf-8"))["panels"]
    return found


def panel_queries(panel: Mapping[str, Any], interval: str, **variables: str) -> Iterator[tuple[str, str]]:
    """Give legend and query of each series of a panel. A variable that is not named stands for everything."""
    values = {"__rate_interval": interval, **variables}
    for target in panel.get("targets", ()):
        yield target["legendFormat"], VARIABLE.sub(lambda found: values.get(found[1], ".*"), target["expr"])
