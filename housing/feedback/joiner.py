"""The joiner: a process that matches feedback with the prediction log and adds up the errors of predictions.

Each step is one transaction of `feedback.db`: a joiner that is killed counts no label twice and forgets none.
Only a line of the joined rows may then appear twice. A damaged line is skipped and counted; after damage to the database,
all feedback is read again.
"""

import logging
import os
import sqlite3
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from housing.core.errors import ConfigError
from housing.core.locks import file_lock
from housing.core.printable import configure_logging
from housing.core.step_loop import repeat_forever
from housing.feedback import database, error_totals, local_database
from housing.feedback.database import DATABASE_FILE, FeedbackDatabase
from housing.feedback.error_totals import DUPLICATES, MALFORMED, OTHER, UNMATCHED, ErrorTotals
from housing.feedback.label import Label, parse_labels
from housing.feedback.log_reader import Entry, scan
from housing.server_files import metric_files, releases
from housing.server_files.log_index import candidate_files
from housing.server_files.rotating_file import FEEDBACK, JOINED, PREDICTIONS, RotatingFile, iter_lines, list_files
from server.core.settings import Settings

if TYPE_CHECKING:
    from housing.feedback.interval_adaptation import IntervalAdaptation

LOCK_FILE = "joiner.lock"
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
        self._log_dir, self._models, self._metrics_dir = settings.log_dir, settings.list_models(), metrics_dir
        self._timeout = settings.feedback_timeout_seconds
        self._limits = settings.log_max_bytes, settings.log_backups, settings.log_retention_days
        self._joined: dict[str, RotatingFile] = {}
        self._adaptation = _interval_adaptation(settings, metrics_dir) if settings.adaptive_intervals else None
        self._database = self._open_database()
        self._published: Published | None = None
        self._is_catching_up = True  # totals that are still being rebuilt would look like a reset of the counters

    def step(self) -> None:
        """Take one step, whole or not at all. Raises OSError or sqlite3.Error if a file cannot be read or written.

        If the reason is a damaged database, the next step has a new one.
        """
        try:
            with self._database.transaction():
                is_complete = self._read_and_match()
                if self._adaptation is not None:
                    self._adaptation.learn(self._database)
            current = Published(self._database.totals(), self._database.counts())
        except sqlite3.Error as error:
            if not local_database.is_transient(error):
                self._database.close()
                self._database = self._open_database()
                self._is_catching_up = True
            raise
        finally:
            if self._adaptation is not None:
                self._adaptation.discard()
        if self._adaptation is not None:
            self._adaptation.publish(self._database)
        self._is_catching_up &= not is_complete
        if current != self._published and not self._is_catching_up:
            damaged = local_database.count_damaged(self._log_dir / DATABASE_FILE)
            error_totals.publish(self._metrics_dir, current.totals, current.counts, damaged)
            self._published = current

    def _open_database(self) -> FeedbackDatabase:
        damaged = database.set_aside_if_damaged(self._log_dir)
        if damaged is not None:
            log.error("The database of feedback is damaged. It is now %s; all feedback files are read again.", damaged)
        return FeedbackDatabase(self._log_dir)

    def _read_and_match(self) -> bool:
        """Count new and pending labels. Return whether all feedback is read."""
        pending = self._database.pending()
        room = MAX_PENDING - len(pending)
        labels = self._read_new_feedback(room)
        self._match(pending + labels)
        return len(labels) < room

    def _read_new_feedback(self, room: int) -> list[Label]:
        """Return the labels that arrived since the last step, as many as there is room for."""
        labels: list[Label] = []
        offsets = self._database.offsets()
        read: dict[str, int] = {}
        for path in list_files(self._log_dir, FEEDBACK):
            offset = offsets.get(path.name, 0)
            read[path.name] = offset if offset <= path.stat().st_size else 0  # a file that was cut off is read again
            for line in iter_lines(path, read[path.name]):
                if len(labels) >= room:
                    break
                read[path.name] += len(line)
                try:
                    labels += parse_labels(line, time.time())
                except ValueError as error:
                    log.warning("Skipped a malformed line of %s: %s", path, error)
                    self._database.increase(MALFORMED, 1)
        self._database.set_offsets(read)
        return labels

    def _match(self, labels: list[Label]) -> None:
        self._database.forget_files_except({path.name for path in list_files(self._log_dir, PREDICTIONS)})
        totals = self._with_served_versions(self._database.totals())
        waiting: dict[str, list[Label]] = defaultdict(list)
        for label in sorted(labels, key=lambda label: label.time):
            waiting[label.request_id].append(label)
        joined: dict[str, list[bytes]] = defaultdict(list)
        for path, request_ids in candidate_files(self._log_dir, list(waiting), self._timeout).items():
            for request_id, entry in scan(path, request_ids):
                labels_of_request = waiting.pop(request_id, [])
                if entry is None:
                    log.warning("Skipped the malformed entry %s of %s", request_id, path)
                    self._database.increase(MALFORMED, 1)
                    self._database.increase(UNMATCHED, len(labels_of_request))
                else:
                    joined[entry.get("name", "")] += self._count(path, entry, labels_of_request, totals)
        for name, lines in joined.items():
            if lines:
                self._joined_file(name).append_durably(b"".join(lines))
        unmatched = list(chain.from_iterable(waiting.values()))
        deadline = time.time() - self._timeout
        pending = [label for label in unmatched if label.time > deadline]
        self._database.set_pending(pending)
        self._database.increase(UNMATCHED, len(unmatched) - len(pending))
        self._database.set_totals(totals)

    def _joined_file(self, name: str) -> RotatingFile:
        """Return the file of joined rows. A model with a name has a folder of its own, since its columns are its own."""
        if name not in self._joined:
            self._joined[name] = RotatingFile(self._log_dir / name, JOINED, *self._limits)
        return self._joined[name]

    def _count(self, path: Path, entry: Entry, labels: list[Label], totals: dict[str, ErrorTotals]) -> list[bytes]:
        """Add the labels of one request to the totals, and return its joined rows as lines."""
        joined: list[bytes] = []
        key = error_totals.totals_key(entry)
        version = key if key in totals else OTHER
        for label in labels:
            if label.row >= len(entry["predictions"]):
                self._database.increase(UNMATCHED, 1)
                continue
            total = totals[version] + ErrorTotals.from_label(entry, label.row, label.value)
            if not total.is_finite:
                log.warning("Skipped a label whose error is too large: %s", label)
                self._database.increase(MALFORMED, 1)
                continue
            joined.append(orjson.dumps(_joined_row(entry, label)) + b"\n")
            if self._database.count_once(label.request_id, label.row, path.name):
                totals[version] = total
                if self._adaptation is not None:
                    self._adaptation.add(entry, label.row, label.value)
            else:
                self._database.increase(DUPLICATES, 1)
        return joined

    def _with_served_versions(self, totals: dict[str, ErrorTotals]) -> dict[str, ErrorTotals]:
        """Add each served version at 0, before its first label: Prometheus sees no increase in a series that begins above 0.

        A new database gets the previous versions as well, whose feedback it may read again.
        """
        with suppress(OSError, ConfigError):  # the puller reports it
            self._models.refresh()
        is_new, totals = not totals, {OTHER: ErrorTotals(), **totals}
        for folder in self._models.folders.values():
            release, canary = releases.current_release(folder), releases.canary_release(folder)
            if release is not None:
                # the list of a canary's folder has the canary, and does not fail if it is over and being removed
                known = releases.list_releases(folder).values() if is_new or canary else ()
                for info in (*known, releases.release_info(release)):
                    totals = error_totals.track_version(totals, error_totals.totals_key(info))
        return totals


def _interval_adaptation(settings: Settings, metrics_dir: Path) -> "IntervalAdaptation":
    # pylint: disable-next=import-outside-toplevel  # it loads models, for which the joiner has no memory by default
    from housing.feedback.interval_adaptation import IntervalAdaptation

    return IntervalAdaptation(settings.list_models(), settings.log_dir, metrics_dir)


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


def main() -> None:
    """Join the feedback of the log directory that the environment names, until this process is stopped."""
    configure_logging("joiner: %(message)s")
    settings = Settings.from_environment()
    waiting_message = f"another joiner works in {settings.log_dir}; waiting until it ends"
    try:
        with file_lock(settings.log_dir / LOCK_FILE, waiting_message=waiting_message):  # the joined rows have one writer
            joiner = Joiner(settings, Path(os.environ[metric_files.METRICS_DIR_VARIABLE]))
            repeat_forever(joiner.step, REST_RATIO, (OSError, sqlite3.Error), "feedback is not counted at present", log)
    except KeyboardInterrupt:
        pass  # Ctrl-C in a terminal


if __name__ == "__main__":
    main()
