"""A sweep: the ordered list of its jobs and what came of each, reused runs included.

Hydra's sweepers and launchers run the jobs, in this process or in others; each job leaves an outcome in its folder.
The parent opens the sweep's own run before the first job, and closes it when Hydra is through, however it ended.
"""

import json
import os
import shutil
import sys
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from housing.bundle.bundle import Bundle
from housing.core import console
from housing.core.command import USER_ERRORS
from housing.core.config import SWEEP_RUN
from housing.core.errors import StoreError
from housing.core.files import atomic_write
from housing.data import table as data
from housing.data.split import split
from housing.plots import run_figures
from housing.runs.outcome import OUTCOME_FILE, Outcome
from housing.runs.run import BUNDLE, CONFIG, FIGURES, HOLDOUT, STOP_FILE, log_bundle
from housing.sweeps import leaderboard, printing
from housing.sweeps.live_view import LiveView
from housing.tracking import store as tracking_store
from housing.tracking import tags as tracking_tags
from housing.tracking.runs import Run
from housing.training.holdout import HoldoutPredictions

JOBS_FILE = "jobs.json"


COMPLETED = ("FINISHED", "PRUNED")  # what a job may end as in a sweep that is complete


class Sweep(Callback):
    """The sweep of this process, from Hydra's notice that it begins until it is closed."""

    current: ClassVar[Self | None] = None

    cfg: DictConfig
    folder: Path
    run: Run
    live_view: LiveView

    def __getstate__(self) -> dict[str, Any]:
        """Travel to the processes of the jobs as an empty shell: a sweep is its parent's."""
        return {}

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Make the store and open the sweep's run before any job needs them; tell the jobs by environment."""
        self.cfg, self.folder = config, Path(config.hydra.sweep.dir)
        if config.export is not None:
            sys.exit(f"error: export={config.export} is the folder of one run; leave out export, or -m")
        tags = {f"housing.{name}": str(value) for name, value in config.tags.items()}
        tags |= {tracking_tags.RUN_TYPE: "sweep", "housing.overrides": " ".join(config.hydra.overrides.task)[:1000]}
        try:
            if next(self.folder.glob(f"*/{OUTCOME_FILE}"), None) is not None:
                sys.exit(f"error: {self.folder} holds a sweep already; give another hydra.sweep.dir")
            self.store = tracking_store.connect(config.mlflow)
            left = self.store.runs.close_dead(config.experiment_name)
            self.run = self.store.runs.open(config.experiment_name, f"sweep {self.folder.name}", tags)
        except (*USER_ERRORS, OSError) as error:  # Hydra would make a warning of it and go on
            sys.exit(f"error: {error}")
        if left:
            print(f"runs that processes which are gone had left running, closed as KILLED: {left}")
        os.environ[SWEEP_RUN] = self.run.id
        self.live_view = LiveView(self.folder, config.metric)
        self.live_view.start()
        Sweep.current = self

    def set_job_count(self, count: int, common_overrides: Collection[str] = ()) -> None:
        """Take note of how many jobs there will be, and which overrides they have in common."""
        self.live_view.total_jobs, self.live_view.common_overrides = count, set(common_overrides)

    def record_crash(self, number: int, overrides: list[str], reason: str, final: bool) -> None:
        """Write down for a job what it cannot any more, in its folder and in MLflow."""
        job = self.folder / str(number)
        outcome = Outcome.read(job) or Outcome(overrides, "RUNNING")
        if outcome.run_id is not None:
            self.store.runs.get(outcome.run_id).run.end("KILLED", reason)
        if final:
            replace(outcome, status="KILLED", error=reason, progress="").write(job)
        if final and self.cfg.fail_fast:
            with atomic_write(self.folder / STOP_FILE) as partial:
                partial.write_text(f"job {number}: {reason}", encoding="utf-8")

    def close(self, interrupted: bool = False) -> bool:
        """Write the list and the leaderboard, keep the best run's bundle and figures; say whether every job finished."""
        self.live_view.stop()
        complete = False
        try:
            try:
                complete = self._finalise() and not interrupted
                if not complete:
                    self.store.runs.close_dead(self.cfg.experiment_name, self.run.id)
            except OSError as error:
                self._print_error(f"{error} ({self.folder})")
            self.run.close("FINISHED" if complete else "KILLED" if interrupted else "FAILED")
        except StoreError as error:  # it cannot take note of the end either; the next sweep does that
            self._print_error(str(error))
            return False
        return complete

    def _print_error(self, error: str) -> None:
        print(f"error: {error}\nmend that, then the same command goes on from here", file=sys.stderr)

    def _finalise(self) -> bool:
        """Write down and show what came of the jobs, and say whether that is all that was asked."""
        outcomes = self.outcomes()
        self._write_jobs(outcomes)
        if outcomes:  # none were begun where Hydra refused the command line
            self._publish_leaderboard(outcomes)
        if 0 < len(outcomes) < self.live_view.total_jobs:
            print(
                f"{self.live_view.total_jobs - len(outcomes)} of {self.live_view.total_jobs} jobs left no word; the same command runs them"
            )
        best = best_outcome(outcomes, self.cfg.metric)
        if best is not None:
            self.run.log(
                metrics={self.cfg.metric: best.metrics[self.cfg.metric]}, tags={tracking_tags.BEST_RUN: str(best.run_id)}
            )
            self._keep_best_run(best)
        self._clean_up()
        return 0 < len(outcomes) >= self.live_view.total_jobs and all(outcome.status in COMPLETED for outcome in outcomes)

    def _write_jobs(self, outcomes: list[Outcome]) -> None:
        with atomic_write(self.folder / JOBS_FILE) as partial:
            partial.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=2) + "\n", encoding="utf-8")

    def _publish_leaderboard(self, outcomes: list[Outcome]) -> None:
        """Print the leaderboard, write it as table and as page, and log both with the list."""
        objectives = list(self.cfg.hydra.sweeper.get("objectives") or [self.cfg.metric])
        printing.show_leaderboard(outcomes, self.cfg, objectives, self.run.id)
        title = f"{self.cfg.experiment_name}: sweep {self.folder.name}"
        written = leaderboard.write(outcomes, objectives, title, self.folder, self.cfg.figures)
        console.show_file(written[-1])
        for path in (self.folder / JOBS_FILE, *written):
            self.run.log_file(path)

    def outcomes(self) -> list[Outcome]:
        """Give what came of each job that was begun, in order; a job that left nothing is LOST."""
        jobs = sorted((path.parent for path in self.folder.glob(f"*/{OUTCOME_FILE}")), key=lambda job: (len(job.name), job.name))
        return [_read_outcome(job) for job in jobs]

    def _keep_best_run(self, best: Outcome) -> None:
        """See that the best run has its bundle and its figures, whatever the other runs keep."""
        record = self.store.runs.get(str(best.run_id))
        folder = Path(record.tags.get(tracking_tags.FOLDER, ""))
        if not (folder / BUNDLE).is_dir():
            return  # reused: promote fits it again where the sweep that fitted it did not keep it
        bundle = Bundle.read(folder / BUNDLE)
        if tracking_tags.MODEL_ID not in record.tags:
            log_bundle(record.run, folder, bundle.schema)
        if self.cfg.figures:
            job = OmegaConf.load(folder / CONFIG / "config.yaml")
            table = data.load(job.data, job.max_rows)
            holdout = HoldoutPredictions.read(folder / HOLDOUT)
            record.run.log_directory(run_figures.draw(bundle, holdout, table, split(table, job.split), folder / FIGURES), FIGURES)

    def _clean_up(self) -> None:
        """Remove bundles, which the store has or nobody needs, and what a process that was killed had half written."""
        for folder in (*self.folder.glob(f"*/{BUNDLE}"), *self.folder.glob(f"*/{HOLDOUT}")):
            shutil.rmtree(folder)
        for temporary in self.folder.glob("*/.*"):
            if temporary.is_dir():
                shutil.rmtree(temporary)
            else:
                temporary.unlink(missing_ok=True)


def best_outcome(outcomes: list[Outcome], metric: str) -> Outcome | None:
    """Give the finished outcome with the least metric, or None where none finished."""
    finished = [outcome for outcome in outcomes if outcome.status == "FINISHED"]
    return min(finished, key=lambda outcome: outcome.metrics[metric], default=None)


def _read_outcome(job: Path) -> Outcome:
    outcome = Outcome.read(job)
    assert outcome is not None, job
    return outcome if outcome.status != "RUNNING" else replace(outcome, status="LOST", error=tracking_tags.CRASH_MESSAGE)
