"""The joiner: a process that matches feedback with the prediction log and adds up the errors of predictions.

Each step is one transaction of `feedback.db`: a joiner that is killed counts no label twice and forgets none.
Only a line of the joined rows may then appear twice.
"""

import logging
import os
import sqlite3
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from housing.core.locks import file_lock
from server.core import releases
from server.core.settings import Settings
from server.feedback import error_totals
from server.feedback.database import DUPLICATES, UNMATCHED, FeedbackDatabase, Label
from server.feedback.error_totals import OTHER, ErrorTotals
from server.prediction_log.index import candidate_files, scan
from server.prediction_log.reader import Entry
from server.prediction_log.rotating_file import FEEDBACK, JOINED, PREDICTIONS, RotatingFile, iter_lines, list_files

LOCK_FILE = "joiner.lock"
MIN_PAUSE_SECONDS = 0.5  # between two steps
REST_RATIO = 4  # the pause is at least so many times the duration of a step: at most a fifth of a core
MAX_PENDING = 10_000  # labels held in memory; later ones stay in their file until there is room

log = logging.getLogger("joiner")


@dataclass
class Published:
    """Totals and counts in the metrics file."""

    totals: dict[str, ErrorTotals]
    counts: dict[str, int]


class Joiner:
    """Reads new feedback, matches it with predictions, and publishes the totals, one step after the other."""

    def __init__(self, settings: Settings, metrics_dir: Path) -> None:
        self._log_dir, self._release_dir, self._metrics_dir = settings.log_dir, settings.release_dir, metrics_dir
        self._timeout = settings.feedback_timeout_seconds
        self._joined = RotatingFile(
            settings.log_dir, JOINED, settings.log_max_bytes, settings.log_backups, settings.log_retention_days
        )
        self._database = FeedbackDatabase(settings.log_dir)
        self._published: Published | None = None

    def step(self) -> None:
        """Take one step, whole or not at all. Raises OSError or sqlite3.Error if a file cannot be read or written."""
        with self._database.transaction():
            labels = self._database.pending() + self._read_new_feedback()
            self._match(labels)
        current = Published(self._database.totals(), self._database.counts())
        if current != self._published:
            counts = current.counts
            error_totals.publish(self._metrics_dir, current.totals, counts[UNMATCHED], counts[DUPLICATES])
            self._published = current

    def _read_new_feedback(self) -> list[Label]:
        """Return the labels that arrived since the last step, as many as there is room for."""
        labels: list[Label] = []
        offsets = self._database.offsets()
        room = MAX_PENDING - len(self._database.pending())
        read: dict[str, int] = {}
        for path in list_files(self._log_dir, FEEDBACK):
            read[path.name] = offsets.get(path.name, 0)
            for line in iter_lines(path, read[path.name]):
                if len(labels) >= room:
                    break
                read[path.name] += len(line)
                message = orjson.loads(line)
                labels += [Label(item["request_id"], item["row"], item["value"], message["time"]) for item in message["feedback"]]
        self._database.set_offsets(read)
        return labels

    def _match(self, labels: list[Label]) -> None:
        self._database.forget_files_except({path.name for path in list_files(self._log_dir, PREDICTIONS)})
        totals = self._with_current_version(self._database.totals())
        waiting: dict[str, list[Label]] = defaultdict(list)
        for label in sorted(labels, key=lambda label: label.time):
            waiting[label.request_id].append(label)
        joined: list[bytes] = []
        for path, request_ids in candidate_files(self._log_dir, list(waiting), self._timeout).items():
            for entry in scan(path, request_ids):
                joined += self._count(path, entry, waiting.pop(entry["id"], []), totals)
        if joined:
            self._joined.append_durably(b"".join(joined))
        unmatched = [label for labels_of_request in waiting.values() for label in labels_of_request]
        deadline = time.time() - self._timeout
        pending = [label for label in unmatched if label.time > deadline]
        self._database.set_pending(pending)
        self._database.increase(UNMATCHED, len(unmatched) - len(pending))
        self._database.set_totals(totals)

    def _count(self, path: Path, entry: Entry, labels: list[Label], totals: dict[str, ErrorTotals]) -> list[bytes]:
        """Add the labels of one request to the totals, and return its joined rows as lines."""
        joined: list[bytes] = []
        for label in labels:
            if label.row >= len(entry["predictions"]):
                self._database.increase(UNMATCHED, 1)
                continue
            joined.append(orjson.dumps(_joined_row(entry, label)) + b"\n")
            if self._database.count_once(label.request_id, label.row, path.name):
                version = entry["version"] if entry["version"] in totals else OTHER
                totals[version] += ErrorTotals.from_label(entry, label.row, label.value)
            else:
                self._database.increase(DUPLICATES, 1)
        return joined

    def _with_current_version(self, totals: dict[str, ErrorTotals]) -> dict[str, ErrorTotals]:
        """Add the served version at 0, before its first label: Prometheus sees no increase in a series that begins above 0."""
        release = releases.current_release(self._release_dir)
        if release is None:
            return {OTHER: ErrorTotals(), **totals}
        return error_totals.track_version(totals, releases.release_info(release)["version"])


def _joined_row(entry: Entry, label: Label) -> dict[str, Any]:
    """Return a predicted row with its label, from which a model can learn."""
    row = asdict(label)
    return {
        "id": row.pop("request_id"),
        **row,
        "prediction": entry["predictions"][label.row],
        "version": entry["version"],
        "columns": dict(zip(entry["columns"], entry["rows"][label.row], strict=True)),
    }


def _join_forever(settings: Settings) -> None:
    joiner = Joiner(settings, Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
    last_error = ""
    while True:
        started, error_message = time.monotonic(), ""
        try:
            joiner.step()
        except (OSError, sqlite3.Error) as error:  # such as a full disk: the next step tries again
            error_message = f"feedback is not counted at present: {error}"
        if error_message and error_message != last_error:
            log.error("%s", error_message)
        last_error = error_message
        time.sleep(max(MIN_PAUSE_SECONDS, REST_RATIO * (time.monotonic() - started)))


def main() -> None:
    """Join the feedback of the log directory that the environment names, until this process is stopped."""
    logging.basicConfig(format="joiner: %(message)s", level=logging.INFO)
    settings = Settings.from_environment()
    waiting_message = f"another joiner works in {settings.log_dir}; waiting until it ends"
    try:
        with file_lock(settings.log_dir / LOCK_FILE, waiting_message=waiting_message):  # the joined rows have one writer
            _join_forever(settings)
    except KeyboardInterrupt:
        pass  # Ctrl-C in a terminal


if __name__ == "__main__":
    main()
