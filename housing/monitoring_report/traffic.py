"""Requests of a period, counted in one pass over the prediction log: by version, route and time."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from housing.feedback.error_totals import totals_key
from housing.feedback.log_reader import Entry, LogFilter, parse_entry
from housing.monitoring_report.latency import LatencyHistogram
from housing.monitoring_report.timeline import Timeline

MAX_ROUTES = 50
OTHER_ROUTES = "other"


@dataclass
class VersionTraffic:
    """Requests that one version answered. `failed` of them ended with status 500; times are Unix seconds."""

    requests: int = 0
    rows: int = 0
    failed: int = 0
    first: float = float("inf")
    last: float = float("-inf")


@dataclass
class Traffic:
    """The requests of a period.

    Attributes
    ----------
    versions
        By the key of the version: see `totals_key`.
    requests
        The number of requests by version and bucket of the timeline.
    latency, latency_by_route
        By bucket, and by route.
    malformed
        Damaged lines; their time is unknown.
    """

    timeline: Timeline
    versions: dict[str, VersionTraffic] = field(default_factory=lambda: defaultdict(VersionTraffic))
    requests: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    latency: dict[int, LatencyHistogram] = field(default_factory=lambda: defaultdict(LatencyHistogram))
    latency_by_route: dict[str, LatencyHistogram] = field(default_factory=lambda: defaultdict(LatencyHistogram))
    all_latencies: LatencyHistogram = field(default_factory=LatencyHistogram)
    malformed: int = 0

    @property
    def total(self) -> VersionTraffic:
        """The sum over all versions."""
        parts = self.versions.values()
        return VersionTraffic(
            sum(part.requests for part in parts),
            sum(part.rows for part in parts),
            sum(part.failed for part in parts),
            min((part.first for part in parts), default=float("inf")),
            max((part.last for part in parts), default=float("-inf")),
        )

    def add(self, entry: Entry) -> None:
        """Count an entry of the log."""
        key, moment = totals_key(entry), entry["time"]
        version = self.versions[key]
        version.requests += 1
        version.rows += len(entry["rows"])
        version.failed += "failed" in entry
        version.first, version.last = min(version.first, moment), max(version.last, moment)
        bucket = self.timeline.bucket(moment)
        self.requests[key][bucket] += 1
        latency = entry.get("latency_ms")
        if isinstance(latency, int | float):
            for histogram in (self.all_latencies, self.latency[bucket], self.latency_by_route[self._route(entry)]):
                histogram.add(latency)

    def _route(self, entry: Entry) -> str:
        route = str(entry.get("route", OTHER_ROUTES))
        is_known = route in self.latency_by_route or len(self.latency_by_route) < MAX_ROUTES
        return route if is_known else OTHER_ROUTES


def read_traffic(lines: Iterable[bytes], timeline: Timeline, log_filter: LogFilter) -> Traffic:
    """Count the selected entries of a log."""
    traffic = Traffic(timeline)
    for line in lines:
        try:
            entry = parse_entry(line)
        except ValueError:
            traffic.malformed += 1
            continue
        if log_filter.matches(entry):
            traffic.add(entry)
    return traffic
