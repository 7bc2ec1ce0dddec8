"""The shadow: a process that follows the prediction log of a running server and predicts each row with a candidate.

Callers do not wait for it: it reads what is logged, with the lowest priority. A puller of its own publishes the version at the
alias `serve.shadow` to a release directory of its own, which this process reads.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from housing.bundle.bundle import Bundle
from housing.core.errors import BundleError
from housing.core.locks import file_lock
from housing.core.printable import configure_logging
from housing.core.step_loop import repeat_forever
from housing.feedback.log_reader import LogFilter, parse_joined_row
from housing.server_files import metric_files, releases
from housing.server_files.rotating_file import JOINED, PREDICTIONS, iter_lines, list_files
from housing.traffic.candidate import Candidate, CandidateCounts
from housing.traffic.labelled_rows import predict_joined_rows
from housing.traffic.logged_rows import LogCounts, make_batches
from housing.traffic.shadow_state import ShadowState, Totals
from server.core.settings import Settings

LOCK_FILE = "shadow.lock"
NICENESS = 19  # the lowest priority: workers come first
REST_RATIO = 1  # the pause is at least as long as a step: at most half of a core
STEP_BYTES = 4_000_000  # read in a step, of each kind of file; a longer step would delay what Prometheus sees

log = logging.getLogger("shadow")


class Shadow:
    """Reads new lines of the log, predicts them, and publishes totals, one step after the other."""

    def __init__(self, settings: Settings, metrics_dir: Path) -> None:
        self._log_dir, self._release_dir, self._metrics_dir = settings.log_dir, settings.release_dir, metrics_dir
        self._release: Path | None = None
        self._candidate: Candidate | None = None
        self._version = ""
        self._state = self._read_state()

    def step(self) -> None:
        """Take one step. A shadow that is killed repeats it, and counts no row twice. Raises OSError if a file cannot be read."""
        self._load_candidate()
        if self._candidate is None:
            self._state.offsets = self._sizes()  # nobody predicts these rows
        else:
            totals = self._state.track(self._version)
            self._candidate.counts = CandidateCounts()
            self._predict_rows(self._candidate, totals)
            counts = self._candidate.counts
            totals.rows += counts.predicted
            totals.refused += counts.refused
            totals.cpu_seconds += counts.validation_seconds + counts.prediction_seconds
            self._predict_labels(self._candidate, totals)
        self._state.write(self._log_dir)
        self._state.publish(self._metrics_dir, self._unread_bytes())

    def _read_state(self) -> ShadowState:
        """Return the saved state. Without one, begin at the end of the log: `housing.replay` predicts what is older."""
        try:
            state = ShadowState.read(self._log_dir)
        except ValueError as error:
            log.error("The state of the shadow is damaged (%s). Totals begin at 0, at the end of the log.", error)
            state = None
        return ShadowState(offsets=self._sizes()) if state is None else state

    def _load_candidate(self) -> None:
        """Load the published candidate unless it is loaded. A damaged one is left to its puller."""
        release = releases.current_release(self._release_dir) if self._release_dir.exists() else None
        if release is None or release == self._release:
            return
        try:
            self._candidate = Candidate(Bundle.read(release / releases.BUNDLE))
        except BundleError as error:
            log.error("Could not load the candidate; the previous one stays: %s", error)
        else:
            self._version = str(releases.release_info(release)["version"])
            log.warning("Predicting with version %s", self._version)
        self._release = release

    def _predict_rows(self, candidate: Candidate, totals: Totals) -> None:
        counts = LogCounts()
        for batch in make_batches(self._new_lines(PREDICTIONS), LogFilter(), counts):
            predicted = candidate.predict(batch)
            difference = predicted.predictions - batch.predictions[predicted.accepted]
            totals.sum_abs_difference += float(np.abs(difference).sum())
            totals.sum_squared_difference += float(np.square(difference).sum())
        self._state.malformed += counts.malformed

    def _predict_labels(self, candidate: Candidate, totals: Totals) -> None:
        rows = [parse_joined_row(line) for line in self._new_lines(JOINED)]
        self._state.malformed += rows.count(None)
        for labels, _ in predict_joined_rows(filter(None, rows), LogFilter(), candidate):
            accepted = labels.take(~np.isnan(labels.candidate))
            totals.labels += len(accepted)
            totals.sum_squared_error += float(np.square(accepted.candidate - accepted.actual).sum())
            totals.sum_squared_answer_error += float(np.square(accepted.logged - accepted.actual).sum())

    def _new_lines(self, kind: str) -> Iterator[bytes]:
        """Yield the complete lines of all files of a kind since the last step, and move their offsets."""
        offsets, n_bytes = self._state.offsets, 0
        paths = list_files(self._log_dir, kind)
        self._forget_removed(kind, paths)
        for path in paths:
            offset = offsets.setdefault(path.name, 0)
            for line in iter_lines(path, offset):
                if n_bytes >= STEP_BYTES:
                    break
                n_bytes += len(line)
                offsets[path.name] += len(line)
                yield line

    def _forget_removed(self, kind: str, paths: list[Path]) -> None:
        present = {path.name for path in paths}
        for name in [name for name in self._state.offsets if name.startswith(f"{kind}-") and name not in present]:
            del self._state.offsets[name]

    def _sizes(self) -> dict[str, int]:
        return {path.name: path.stat().st_size for kind in (PREDICTIONS, JOINED) for path in list_files(self._log_dir, kind)}

    def _unread_bytes(self) -> int:
        return sum(max(size - self._state.offsets.get(name, 0), 0) for name, size in self._sizes().items())


def main() -> None:
    """Follow the log directory that the environment names, until this process is stopped."""
    configure_logging("shadow: %(message)s")
    os.nice(NICENESS)
    metric_files.use_process_name("shadow")
    settings = Settings.from_environment()
    waiting_message = f"another shadow works in {settings.log_dir}; waiting until it ends"
    try:
        with file_lock(settings.log_dir / LOCK_FILE, waiting_message=waiting_message):  # the state has one writer
            shadow = Shadow(settings, Path(os.environ[metric_files.METRICS_DIR_VARIABLE]))
            repeat_forever(shadow.step, REST_RATIO, (OSError,), "rows are not predicted at present", log)
    except KeyboardInterrupt:
        pass  # Ctrl-C in a terminal


if __name__ == "__main__":
    main()
