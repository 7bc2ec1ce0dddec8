"""Prometheus' HTTP API, and the queries of a dashboard's panels."""

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
    """One series of a response: its labels, and its values by time (unix seconds)."""

    labels: dict[str, str]
    times: list[float]
    values: list[float]

    def display_name(self, legend: str) -> str:
        """Return the legend with the values of the labels."""
        return LABEL.sub(lambda match: self.labels.get(match[1], ""), legend)


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def query(self, expr: str, time: float | None = None) -> list[Series]:
        """Return the values now, or at a time (unix seconds)."""
        moment = {} if time is None else {"time": repr(time)}
        result = self.get("query", query=expr, **moment)["result"]
        return [Series(item["metric"], [item["value"][0]], [float(item["value"][1])]) for item in result]

    def query_range(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        """Return the values at every step (seconds). A step without a value (0 of 0 requests) is left out."""
        result = self.get("query_range", query=expr, start=repr(start), end=repr(end), step=repr(step))["result"]
        series = [(item["metric"], [(at, float(value)) for at, value in item["values"] if value != "NaN"]) for item in result]
        return [Series(labels, *map(list, zip(*points, strict=True))) for labels, points in series if points]

    def get(self, route: str, **parameters: str) -> Any:
        """Return the data of a route of the API. Raises urllib.error.HTTPError for an invalid query."""
        with urllib.request.urlopen(f"{self.url}/api/v1/{route}?{urllib.parse.urlencode(parameters)}", timeout=30) as response:
            return json.load(response)["data"]


def read_panels(dashboard: Path) -> list[dict[str, Any]]:
    """Return the panels of a dashboard's file from top to bottom, row headings included."""
    panels: list[dict[str, Any]] = json.loads(dashboard.read_text(encoding="utf-8"))["panels"]
    return panels


def panel_queries(panel: Mapping[str, Any], interval: str, **variables: str) -> Iterator[tuple[str, str]]:
    """Yield legend and query of each series of a panel. A variable without a value matches everything."""
    values = {"__rate_interval": interval, **variables}
    for target in panel.get("targets", ()):
        yield target["legendFormat"], VARIABLE.sub(lambda match: values.get(match[1], ".*"), target["expr"])
