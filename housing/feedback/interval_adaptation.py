"""Adaptive intervals in the joiner: labels of served versions become changes of their quantiles, which the workers read.

The trackers are part of the joiner's database, so a killed joiner learns from no label twice.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from housing.bundle.adaptation import Adaptation, adaptation_path
from housing.bundle.bundle import Bundle
from housing.core.errors import ConfigError
from housing.core.model_list import ModelList
from housing.feedback.database import FeedbackDatabase
from housing.feedback.error_totals import totals_key
from housing.feedback.log_reader import Entry
from housing.feedback.quantile_tracker import LEVELS, QuantileTracker
from housing.feedback.served_bundles import ServedBundles
from housing.schema.column import Vector
from housing.server_files import metric_files
from housing.server_files.metric_files import series_key
from server.metrics.model_metrics import version_labels

METRICS_FILE = "gauge_max_joiner.db"  # beside the files of the workers
SHOWN_COVERAGE = 0.9
SCORE_QUARTILE = 0.6745  # of the standard normal distribution
MIN_SPREAD = 1e-6
LABELS = "housing_adaptive_interval_labels", "Labels from which the intervals of a version were adapted."
WIDTH_RATIO = (
    "housing_adaptive_interval_width_ratio",
    "Mean width of adapted 90 % intervals, divided by that of the calibrated ones.",
)

log = logging.getLogger("joiner")


@dataclass(frozen=True)
class Observation:
    """A predicted row with its label."""

    time: float
    record: Mapping[str, Any]
    value: float


class IntervalAdaptation:
    """Collects the labels of a step, learns from them, and publishes the adaptation of each version."""

    def __init__(self, models: ModelList, log_dir: Path, metrics_dir: Path) -> None:
        self._bundles, self._log_dir, self._metrics_dir = ServedBundles(models), log_dir, metrics_dir
        self._new: dict[tuple[str, str], list[Observation]] = defaultdict(list)
        self._published: dict[str, dict[str, Any]] = {}
        self._has_changed = True  # what was published before this process started is written again

    def add(self, entry: Entry, row: int, value: float) -> None:
        """Take a label that was just counted."""
        record = dict(zip(entry["columns"], entry["rows"][row], strict=True))
        self._new[totals_key(entry), entry.get("run_id", "")].append(Observation(entry["time"], record, value))

    def learn(self, database: FeedbackDatabase) -> None:
        """Update the trackers in the transaction of a step. Raises sqlite3.Error."""
        if not self._new and not self._has_changed:
            return
        states = database.adaptations()
        with suppress(OSError, ConfigError):  # the puller reports it
            self._bundles.refresh()
            for version in states.keys() - set(self._bundles.keys):
                database.remove_adaptation(version)
                self._has_changed = True
        for (version, run_id), observations in self._new.items():
            bundle = self._bundles.get(version)
            if bundle is None or bundle.interval is None or bundle.card["run_id"] != run_id:
                continue
            state = states.get(version, {})
            tracker = QuantileTracker.from_dict(state["tracker"]) if state.get("run_id") == run_id else create_tracker(bundle)
            try:
                _learn(tracker, bundle, sorted(observations, key=lambda observation: observation.time))
            except Exception:  # pylint: disable=broad-exception-caught  # a damaged line of the log may hold anything
                log.exception("Intervals of version %s are not adapted to %d labels", version, len(observations))
                continue
            tracker.publish(time.time())
            database.set_adaptation(version, {"run_id": run_id, "tracker": tracker.to_dict()})
            self._has_changed = True

    def discard(self) -> None:
        """Forget the labels of a step, which has ended."""
        self._new.clear()

    def publish(self, database: FeedbackDatabase) -> None:
        """Write the files of all versions whose state is new, after the transaction. Raises OSError."""
        if not self._has_changed:
            return
        states, published = database.adaptations(), self._published
        series: dict[str, float] = {}
        for version, state in states.items():
            adaptation, bundle = _adaptation(state), self._bundles.get(version)
            if state != published.get(version):
                adaptation.write(self._path(version))
            if bundle is not None:
                series |= dict(_series(version, adaptation, bundle))
        for version in published.keys() - states.keys():
            self._path(version).unlink(missing_ok=True)
        metric_files.write_series(self._metrics_dir / METRICS_FILE, series)
        self._published, self._has_changed = states, False

    def _path(self, key: str) -> Path:
        model, _, version = key.rpartition(":")
        return adaptation_path(self._log_dir, model, version)


def create_tracker(bundle: Bundle) -> QuantileTracker:
    """Return the tracker of a bundle with intervals, before its first label."""
    assert bundle.interval is not None
    scores, n = bundle.interval.calibration.scores, len(bundle.interval.calibration)
    levels = np.array([level for level in LEVELS if 1 <= (n + 1) * level <= n])
    lower, upper = np.quantile(scores, [0.25, 0.75])
    return QuantileTracker(levels, max(float(upper - lower) / (2 * SCORE_QUARTILE), MIN_SPREAD))


def _learn(tracker: QuantileTracker, bundle: Bundle, observations: list[Observation]) -> None:
    matrix = bundle.schema.encode_records([observation.record for observation in observations])
    actual, times = (_column(observations, name) for name in ("value", "time"))
    tracker.learn(bundle.score_residuals(matrix, actual, tracker.levels.tolist()), times)


def _column(observations: list[Observation], name: str) -> Vector:
    return np.array([getattr(observation, name) for observation in observations], dtype=np.float64)


def _adaptation(state: Mapping[str, Any]) -> Adaptation:
    tracker = QuantileTracker.from_dict(state["tracker"])
    return Adaptation(state["run_id"], tracker.n_labels, tracker.levels, tracker.used_levels, tracker.offsets)


def _series(key: str, adaptation: Adaptation, bundle: Bundle) -> Iterator[tuple[str, float]]:
    """Yield the gauges of a version."""
    assert bundle.interval is not None
    model, _, version = key.rpartition(":")
    labels, interval = version_labels(version, model), bundle.interval
    yield series_key(*LABELS, labels), float(adaptation.n_labels)
    if interval.max_coverage >= SHOWN_COVERAGE:
        ratio = interval.adapted(adaptation).mean_score_width(SHOWN_COVERAGE) / interval.mean_score_width(SHOWN_COVERAGE)
        yield series_key(*WIDTH_RATIO, labels), ratio
