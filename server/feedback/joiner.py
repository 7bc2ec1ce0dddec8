"""The joiner: its own process, which matches feedback with the prediction log and counts how far predictions were off.

What it knows is in one small file, replaced whole after each step, which says how far the files of counted rows hold:
killed at any point it counts nothing twice and forgets nothing. Only a line of joined rows may then be there twice.
"""

import fcntl
import json
import logging
import os
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import orjson

from housing.core.files import atomic_write
from server.core import releases
from server.core.settings import Settings
from server.feedback import error_totals
from server.feedback.deduplication import Counted, remove_gone
from server.feedback.error_totals import Tally
from server.prediction_log.index import files_of, search
from server.prediction_log.reader import Entry
from server.prediction_log.rotating_file import FEEDBACK, JOINED, RotatingFile, list_files, iter_lines

STATE, LOCK = "joiner.json", "joiner.lock"


PAUSE = 0.5  # seconds between two steps, at least


SHARE = 4  # steps rest as many times longer than they work: at most a fifth of a core


MOST_WAITING = 10_000  # true values held in memory; what came later stays in its file until there is room


log = logging.getLogger("joiner")


@dataclass(frozen=True)
class Truth:
    """The true value of a row of a request, and when it came (unix seconds)."""

    id: str
    row: int
    value: float
    time: float


@dataclass(frozen=True)
class State:
    """How far feedback is read, by file; what waits for its prediction; how far files of counted rows hold; the counts."""

    read: dict[str, int] = field(default_factory=dict)
    waiting: list[Truth] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    unmatched: int = 0
    repeated: int = 0
    tallies: dict[str, Tally] = field(default_factory=dict)

    @classmethod
    def of_bytes(cls, kept: bytes) -> Self:
        """Read what `to_bytes` gave; one that was kept before rows were marked as counted knows of none."""
        found = json.loads(kept)
        tallies = {version: Tally(**sums) for version, sums in found.pop("tallies").items()}
        return cls(waiting=[Truth(**truth) for truth in found.pop("waiting")], tallies=tallies, **found)

    def to_bytes(self) -> bytes:
        """Give all of it as JSON; sums may have grown to infinity, which `orjson` would forget."""
        return json.dumps(asdict(self)).encode()


class Joiner:
    """Takes one step after the other: what came is read, matched, counted and kept."""

    def __init__(self, settings: Settings, metrics: Path) -> None:
        self._folder, self._published, self._metrics = settings.log_dir, settings.release_dir, metrics
        self._patience = settings.feedback_timeout
        self._joined = RotatingFile(
            settings.log_dir, JOINED, settings.log_max_bytes, settings.log_backups, settings.log_retention_days
        )
        self._shown = b""

    def step(self) -> None:
        """Take a step. Raises OSError where something cannot be read or written: then it is as if nothing had been done."""
        kept = self._kept()
        state = State.of_bytes(kept) if kept else State()
        came, read = self._came(state)
        after = self._match(state, came, read)
        found = after.to_bytes()
        if found != kept:
            _write_durably(self._folder / STATE, found)
        if found != self._shown:
            error_totals.show(self._metrics, after.tallies, after.unmatched, after.repeated)
            self._shown = found

    def _kept(self) -> bytes:
        try:
            return (self._folder / STATE).read_bytes()
        except FileNotFoundError:
            return b""

    def _came(self, state: State) -> tuple[list[Truth], dict[str, int]]:
        """Give the feedback that came since, as much as there is room for, and how far each file is read then."""
        came: list[Truth] = []
        read: dict[str, int] = {}
        for path in list_files(self._folder, FEEDBACK):
            read[path.name] = state.read.get(path.name, 0)
            for line in iter_lines(path, read[path.name]):
                if len(state.waiting) + len(came) >= MOST_WAITING:
                    break
                read[path.name] += len(line)
                sent = orjson.loads(line)
                came += [Truth(item["request_id"], item["row"], item["value"], sent["time"]) for item in sent["feedback"]]
        return came, read

    def _match(self, state: State, came: list[Truth], read: dict[str, int]) -> State:
        tallies, unmatched, repeated = self._with_version_in_use(state.tallies), state.unmatched, state.repeated
        ends = remove_gone(self._folder, state.counted)
        waiting: dict[str, list[Truth]] = defaultdict(list)
        for truth in sorted([*state.waiting, *came], key=lambda truth: truth.time):
            waiting[truth.id].append(truth)
        wanted = {(truth.id, truth.row) for truths in waiting.values() for truth in truths}
        joined: list[bytes] = []
        for path, names in files_of(self._folder, list(waiting), self._patience).items():
            counted = Counted(path, ends, names, wanted)
            for entry in search(path, names):
                for truth in waiting.pop(entry["id"]):
                    if truth.row >= len(entry["predictions"]):
                        unmatched += 1
                        continue
                    joined.append(orjson.dumps(_joined(entry, truth)) + b"\n")
                    if counted.add(truth.id, truth.row):
                        version = entry["version"] if entry["version"] in tallies else error_totals.OTHER
                        tallies[version] += Tally.of(entry, truth.row, truth.value)
                    else:
                        repeated += 1
            ends[counted.path.name] = counted.keep()
        if joined:
            self._joined.append_durably(b"".join(joined))
        late = time.time() - self._patience
        left = [truth for truths in waiting.values() for truth in truths]
        still = [truth for truth in left if truth.time > late]
        return State(read, still, ends, unmatched + len(left) - len(still), repeated, tallies)

    def _with_version_in_use(self, tallies: Mapping[str, Tally]) -> dict[str, Tally]:
        """Let the version in use be counted from 0 on, before the first feedback for it."""
        folder = releases.current_release(self._published)
        if folder is None:
            return {error_totals.OTHER: Tally(), **tallies}
        return error_totals.put_in_use(tallies, releases.release_info(folder)["version"])


def _joined(entry: Entry, truth: Truth) -> dict[str, Any]:
    """Give a predicted row with its true value, from which a model can learn."""
    return {
        **asdict(truth),
        "prediction": entry["predictions"][truth.row],
        "version": entry["version"],
        "columns": dict(zip(entry["columns"], entry["rows"][truth.row], strict=True)),
    }


def _write_durably(path: Path, data: bytes) -> None:
    with atomic_write(path) as partial, partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _wait_for_our_turn(folder: Path) -> None:
    """Take the lock of a folder, which is ours until this process ends: two joiners would count everything twice."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("another joiner works in %s; this one waits until that has ended", folder)
        fcntl.flock(handle, fcntl.LOCK_EX)


def main() -> None:
    """Join the feedback of the folder that the environment names."""
    logging.basicConfig(format="joiner: %(message)s", level=logging.INFO)
    settings = Settings.from_environment()
    said = ""
    try:
        _wait_for_our_turn(settings.log_dir)
        joiner = Joiner(settings, Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
        while True:
            begun, news = time.monotonic(), ""
            try:
                joiner.step()
            except OSError as error:  # a full disk: it goes on where it was
                news = f"feedback is not counted now: {error}"
            if news and news != said:
                log.error("%s", news)
            said = news
            time.sleep(max(PAUSE, SHARE * (time.monotonic() - begun)))
    except KeyboardInterrupt:
        pass  # this is how a joiner in a terminal ends


if __name__ == "__main__":
    main()
