"""Progress of a running sweep: how many jobs have ended and how, which run now, the best so far, and the time left."""

import os
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path

from housing.runs.outcome import Outcome
from housing.scoring.metrics import as_loss

COMPLETED = ("FINISHED", "PRUNED")  # statuses of a job in a complete sweep
N_RECENT = 20  # jobs that ended last


@dataclass
class Failure:
    """A reason why jobs did not finish: how many, and the first of them."""

    status: str
    reason: str
    example: Outcome
    n_jobs: int = 0


@dataclass
class SweepProgress:  # pylint: disable=too-many-instance-attributes  # one for each fact that is shown
    """The progress of a sweep, read from the folders of its jobs. Each folder is read until its job has ended, then no more.

    Attributes
    ----------
    total_jobs
        The number of jobs, 0 while it is unknown.
    common_overrides
        The overrides that all jobs share, which the name of a job leaves out.
    running
        The running jobs by the name of their folder.
    counts
        How many jobs have ended as reused, finished, pruned, failed, killed or skipped.
    best
        The finished job with the best metric so far.
    failures
        Why jobs did not finish, by status and reason.
    recent
        The jobs that ended last.
    """

    folder: Path
    metric: str
    total_jobs: int = 0
    common_overrides: set[str] = field(default_factory=set)
    started_at: float = field(default_factory=time.time)
    running: dict[str, Outcome] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    best: Outcome | None = None
    failures: dict[tuple[str, str], Failure] = field(default_factory=dict)
    recent: deque[Outcome] = field(default_factory=lambda: deque(maxlen=N_RECENT))
    _ended: set[str] = field(default_factory=set)

    @property
    def n_ended(self) -> int:
        """The number of jobs that have ended."""
        return len(self._ended)

    def update(self) -> list[Outcome]:
        """Read the outcomes of the jobs that had not ended, and return those that have now, in the order of the sweep."""
        try:
            with os.scandir(self.folder) as entries:
                names = [entry.name for entry in entries if entry.name not in self._ended and entry.is_dir()]
        except FileNotFoundError:  # before the first job
            return []
        ended = []
        for name in sorted(names, key=lambda name: (len(name), name)):
            outcome = Outcome.read(self.folder / name)
            if outcome is None:
                continue
            if outcome.status == "RUNNING":
                self.running[name] = outcome
            else:
                self._add(name, outcome)
                ended.append(outcome)
        return ended

    def _add(self, name: str, outcome: Outcome) -> None:
        self.running.pop(name, None)
        self._ended.add(name)
        self.recent.appendleft(outcome)
        self.counts["reused" if outcome.reused else outcome.status.lower()] += 1
        if outcome.status not in COMPLETED:
            reason = " ".join(outcome.error.split())
            self.failures.setdefault((outcome.status, reason), Failure(outcome.status, reason, outcome)).n_jobs += 1
        if outcome.status == "FINISHED" and (self.best is None or self._loss(outcome) < self._loss(self.best)):
            self.best = outcome

    def _loss(self, outcome: Outcome) -> float:
        return as_loss(self.metric, outcome.metrics[self.metric])

    @property
    def status_counts(self) -> str:
        """How many jobs have ended in which way, for people."""
        return ", ".join(f"{count} {name}" for name, count in self.counts.items())

    @property
    def best_score(self) -> str:
        """The metric of the best job so far, or ""."""
        return "" if self.best is None else f"{self.best.metrics[self.metric]:.4f}"

    @property
    def time_left(self) -> str:
        """An estimate from the average duration of the jobs that were not reused, as minutes and seconds; "" without any."""
        fitted = self.n_ended - self.counts["reused"]
        if not fitted or not self.total_jobs:
            return ""
        seconds = (time.time() - self.started_at) / fitted * (self.total_jobs - self.n_ended)
        return minutes_and_seconds(seconds)


def minutes_and_seconds(seconds: float) -> str:
    """Return a duration as minutes and seconds: 3:07."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
