"""Outcomes of jobs, kept as one JSON file in each job's folder."""

import json
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path

from housing.core.files import atomic_write

OUTCOME_FILE = "outcome.json"


@dataclass
class Outcome:  # pylint: disable=too-many-instance-attributes  # the record of a job, one field for each fact
    """The state of a job, and its result once it has one.

    Attributes
    ----------
    status
        RUNNING, FINISHED, PRUNED (stopped early by a search), FAILED, KILLED, SKIPPED (not started, because of fail_fast)
        or LOST (the process ended without writing a result).
    metrics
        Scores on the validation rows, and costs.
    scored_rows
        Identifies the table, the split and the evaluation behind the scores. Scores of different rows cannot be compared.
    worker
        Host and process id.
    started_at
        Seconds since 1970.
    seconds
        Duration of the job.
    progress
        How far a running job is, such as "fold 2 of 5".
    job
        The job's number in its sweep, from 1; None outside a sweep.
    """

    overrides: list[str]
    status: str
    run_id: str | None = None
    link: str = ""
    reused: bool = False
    metrics: dict[str, float] = field(default_factory=dict)
    error: str = ""
    worker: str = ""
    started_at: float = 0.0
    seconds: float = 0.0
    progress: str = ""
    job: int | None = None
    scored_rows: str = ""

    def write(self, folder: Path) -> None:
        """Write the outcome into the job's folder, from which the sweep reads it."""
        with atomic_write(folder / OUTCOME_FILE) as partial:
            partial.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    def describe(self, common: Collection[str] = ()) -> str:
        """Return the job's overrides in short form, without those `common` to all jobs of its sweep."""
        overrides = (override for override in self.overrides if override not in common and not override.startswith("trial="))
        return " ".join(map(_shorten, overrides)) or "(defaults)"

    @classmethod
    def read(cls, folder: Path) -> "Outcome | None":
        """Return the outcome in a job's folder, or None if there is none."""
        try:
            return cls(**json.loads((folder / OUTCOME_FILE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None


@dataclass(frozen=True)
class TrainingResult:
    """A run, or the jobs of a sweep.

    Attributes
    ----------
    metric
        The metric that ranks runs.
    folder
        The folder of the run or of the sweep.
    jobs
        The run alone, or each job that started, in the order of the sweep.
    best_run_id
        The run with the best metric; None if no job finished, or if jobs were scored on different rows.
    sweep_run_id
        MLflow's run of the sweep; None for a run of its own.
    leaderboard
        The page about the sweep.
    """

    metric: str
    folder: str
    jobs: list[Outcome]
    best_run_id: str | None
    sweep_run_id: str | None = None
    leaderboard: Path | None = None


def _shorten(override: str) -> str:
    """Shorten an override to the last part of its name, and a number to four digits."""
    name, _, value = override.partition("=")
    if re.fullmatch(r"-?\d*\.\d+(e-?\d+)?|-?\d+e-?\d+", value):
        value = f"{float(value):.4g}"
    return f"{name.rpartition('.')[2]}={value}"
