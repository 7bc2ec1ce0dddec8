"""Requests that a canary and its champion answered: failures and latencies, from the prediction log."""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from housing.core.canary import Canary
from housing.evaluation.sequential_test import log_rate_evidence
from housing.feedback.log_reader import Entry, LogFilter, parse_entry
from housing.server_files.rotating_file import iter_lines
from housing.traffic.canary_settings import RequestRules
from housing.traffic.logged_rows import select_files

FAILS, SLOW = "fails", "slow"
MIN_LATENCIES = 50  # of the champion, whose median judges the canary's in the same time


@dataclass
class _Latencies:
    """Latencies of requests of about the same number of rows, in milliseconds, that are not compared yet."""

    champion: list[float] = field(default_factory=list)
    canary: list[float] = field(default_factory=list)


class CanaryRequests:
    """Reads new lines of the prediction log at each call. A new reader begins where the canary began."""

    def __init__(self, folder: Path, name: str, canary: Canary, latency_ratio: float) -> None:
        """Take the log folder, and the name under which a server of several models logs the requests of this one."""
        self._folder, self._name, self._canary, self._latency_ratio = folder, name, canary, latency_ratio
        self._offsets: Counter[str] = Counter()
        self._pending: dict[int, _Latencies] = defaultdict(_Latencies)
        self.requests: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.slow, self.compared = 0, 0

    def read(self) -> None:
        """Count the requests that were logged since the last call. Damaged lines are skipped."""
        log_filter = LogFilter(since=self._canary.since)
        for path in select_files(self._folder, log_filter):
            for line in iter_lines(path, self._offsets[path.name]):
                self._offsets[path.name] += len(line)
                try:
                    entry = parse_entry(line)
                except ValueError:
                    continue
                if log_filter.matches(entry) and entry.get("name", self._name) == self._name:
                    self._count(entry)
        self._compare()

    def judge(self, rules: RequestRules) -> tuple[str, str]:
        """Return FAILS or SLOW and the reason, or "" twice if neither can be said."""
        canary, champion = self._canary.version, self._canary.champion
        failures, requests = self.failures[canary], self.requests[canary]
        share = requests / max(1, requests + self.requests[champion])
        if 0 < share < 1:  # of all failures, as many are the canary's if it fails as often
            evidence = log_rate_evidence(failures, failures + self.failures[champion], share)
            if evidence >= -math.log(rules.failures_alpha):
                others = f"{self.failures[champion]:,} of {self.requests[champion]:,} of version {champion}"
                return FAILS, f"{failures:,} of its {requests:,} requests failed, against {others}"
        if self.compared and log_rate_evidence(self.slow, self.compared, 0.5) >= -math.log(rules.latency_alpha):
            limit = f"{rules.latency_ratio:g} times the median of version {champion}"
            return SLOW, f"{self.slow:,} of its {self.compared:,} requests took longer than {limit}"
        return "", ""

    def _count(self, entry: Entry) -> None:
        version = entry["version"]
        if version not in (self._canary.version, self._canary.champion):
            return
        self.requests[version] += 1
        if "failed" in entry:
            self.failures[version] += 1
        elif isinstance(entry.get("latency_ms"), int | float):
            pending = self._pending[len(entry["rows"]).bit_length()]
            (pending.canary if version == self._canary.version else pending.champion).append(entry["latency_ms"])

    def _compare(self) -> None:
        """Count the canary's requests that took longer than `latency_ratio` times the champion's median."""
        for pending in self._pending.values():
            if len(pending.champion) >= MIN_LATENCIES:
                limit = self._latency_ratio * float(np.median(pending.champion))
                self.slow += sum(latency > limit for latency in pending.canary)
                self.compared += len(pending.canary)
                pending.champion, pending.canary = [], []
