"""A sweep: opens its run before the first job, and closes it with leaderboard and best run after the last.

Hydra's sweepers and launchers run the jobs, in this process or in others. Each job writes its outcome into its folder.
"""

import json
import os
import shutil
import socket
import sys
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.command_line import console
from housing.command_line.config_errors import config_errors
from housing.command_line.next_command import next_command
from housing.core.config import SWEEP_RUN
from housing.core.errors import BundleError, HousingError, StoreError
from housing.core.files import atomic_write
from housing.core.locks import machine_lock
from housing.core.printable import show
from housing.core.validators import BOOLEAN, integer
from housing.data.settings import parse_schema
from housing.data.split import split
from housing.plots import run_figures
from housing.runs.outcome import OUTCOME_FILE, Outcome, TrainingResult
from housing.runs.run import BUNDLE, FIGURES, HOLDOUT, log_bundle, write_stop_file
from housing.scoring.holdout import HoldoutPredictions
from housing.streaming.loading import load
from housing.sweeps import leaderboard, printing
from housing.sweeps.live_page import ADDRESS, LivePage
from housing.sweeps.live_view import LiveView
from housing.sweeps.progress import COMPLETED, SweepProgress
from housing.sweeps.ranking import Ranking, best_outcomes, best_run_id
from housing.tracking import store as tracking_store
from housing.tracking import tags as tracking_tags
from housing.tracking.runs import Run, RunRecord
from housing.tracking.store import Store

JOBS_FILE = "jobs.json"


@dataclass(frozen=True)
class SweepSettings:
    """Settings of a sweep."""

    folder: Path
    experiment: str
    table: str  # name of the table's config
    unit: str  # of the table's target
    objectives: list[str]
    figures: bool
    fail_fast: bool
    live: bool  # whether to serve a page while it runs
    port: int  # of that page; 0: a free one
    promote_overrides: list[str]  # that a promotion of its best run needs
    hydra: DictConfig

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Self:
        """Return the settings in a config of housing.train, which includes the node `hydra`. Raises ConfigError."""
        BOOLEAN.validate("sweep.live", cfg.sweep.live)
        integer(0, 65535).validate("sweep.port", cfg.sweep.port)
        return cls(
            folder=Path(cfg.hydra.sweep.dir),
            experiment=cfg.experiment_name,
            table=cfg.data.name,
            unit=parse_schema(cfg.data).target.unit_label,
            objectives=list(cfg.hydra.sweeper.get("objectives") or [cfg.metric]),
            figures=cfg.figures,
            fail_fast=cfg.fail_fast,
            live=cfg.sweep.live,
            port=cfg.sweep.port,
            promote_overrides=[
                *([] if cfg.max_rows is None else [f"max_rows={cfg.max_rows}"]),
                *([] if cfg.metric == "rmse" else [f"rank_by={cfg.metric}"]),
            ],
            hydra=cfg.hydra,
        )

    def promote_command(self, run_id: str) -> str:
        """Return the command that promotes the best run of the sweep."""
        return next_command("promote", *self.promote_overrides, f"sweep={run_id}", table=self.table, hydra=self.hydra)


class Sweep(Callback):
    """The sweep of this process, from Hydra's start event until it is closed."""

    current: ClassVar[Self | None] = None

    config: DictConfig
    settings: SweepSettings
    metric: str
    store: Store
    run: Run
    progress: SweepProgress
    live_view: LiveView
    live_page: LivePage | None

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing to pickle: Hydra sends its callbacks to the jobs' processes, which have no use for the sweep."""
        return {}

    @property
    def folder(self) -> Path:
        """The folder that holds the folders of the jobs."""
        return self.settings.folder

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Open the sweep's run before any job starts. Jobs find its id in the environment."""
        if config.export is not None:
            sys.exit(f"error: export={config.export} is for a single run. Remove either export or -m.")
        if "candidates" in config:
            sys.exit("error: experiment=auto is a search of its own and cannot be a job of a sweep. Remove -m.")
        tags = {f"housing.{name}": str(value) for name, value in config.tags.items()}
        tags |= {tracking_tags.RUN_TYPE: "sweep", "housing.overrides": " ".join(config.hydra.overrides.task)[:1000]}
        try:
            with config_errors(config):
                self.settings, self.metric = SweepSettings.from_config(config), config.metric
            if has_outcomes(self.folder):
                sys.exit(f"error: {self.folder} already holds a sweep. Choose another hydra.sweep.dir.")
            self.progress = SweepProgress(self.folder, self.metric)
            self.live_view = LiveView(self.progress)
            self.live_page = self._open_live_page()
            self.store = tracking_store.connect(config.mlflow, create=True)
            n_closed = self.store.runs.close_dead(self.settings.experiment)
            self.run = self.store.runs.open(self.settings.experiment, f"sweep {self.folder.name}", tags)
        except (HousingError, OSError) as error:  # Hydra would turn an exception into a warning and continue
            sys.exit(f"error: {error}")
        if n_closed:
            show(f"Closed {n_closed} unfinished runs of processes that no longer exist (status KILLED).")
        os.environ[SWEEP_RUN] = self.run.id
        self.live_view.start()
        if self.live_page is not None:
            self.live_page.start()
            show(_describe_live_page(self.live_page.port))
        self.config = config
        Sweep.current = self

    def _open_live_page(self) -> LivePage | None:
        """Return the page of the running sweep, or None if the config asks for none."""
        settings = self.settings
        if not settings.live:
            return None
        page = self.folder / leaderboard.PAGE_FILE
        return LivePage(self.progress, self.live_view.lock, self._title, str(page.absolute()), settings.port)

    @property
    def _title(self) -> str:
        return f"{self.settings.experiment}: sweep {self.folder.name}"

    def set_job_count(self, count: int, common_overrides: Collection[str] = ()) -> None:
        """Set the number of jobs, and the overrides that all jobs share."""
        self.progress.total_jobs, self.progress.common_overrides = count, set(common_overrides)

    def is_running(self, number: int) -> bool:
        """Return whether a job has started and not written how it ended."""
        outcome = Outcome.read(self.folder / str(number))
        return outcome is not None and outcome.status == "RUNNING"

    def record_crash(self, number: int, overrides: list[str], reason: str, final: bool) -> None:
        """Record in folder and store that the process of a job has died; `final` if it will not be retried."""
        folder = self.folder / str(number)
        outcome = Outcome.read(folder) or Outcome(overrides, "RUNNING")
        if outcome.run_id is not None:
            self.store.runs.get(outcome.run_id).run.end("KILLED", reason)
        if final:
            replace(outcome, status="KILLED", error=reason, progress="").write(folder)
        if final and self.settings.fail_fast:
            write_stop_file(self.folder, f"job {number}: {reason}")

    def close(self, interrupted: bool = False) -> bool:
        """Write the leaderboard, log the best run, close the sweep's run, and return whether every job completed."""
        self.live_view.stop()
        if self.live_page is not None:
            self.live_page.stop()
        complete = False
        try:
            try:
                complete = self._finalize() and not interrupted
                if not complete:
                    self.store.runs.close_dead(self.settings.experiment, self.run.id)
            except OSError as error:
                _print_error(f"{error} ({self.folder})")
            self.run.close("FINISHED" if complete else "KILLED" if interrupted else "FAILED")
        except StoreError as error:  # the run stays open; the next sweep closes it
            _print_error(str(error))
            return False
        except Exception:  # a defect: its traceback is shown, and the run does not stay open
            self.run.close("FAILED")
            raise
        return complete

    def result(self) -> TrainingResult:
        """Return the jobs and the best run, for programs."""
        outcomes, page = read_outcomes(self.folder), self.folder / leaderboard.PAGE_FILE
        return TrainingResult(
            metric=self.metric,
            folder=str(self.folder),
            jobs=outcomes,
            best_run_id=best_run_id(outcomes, self.metric),
            sweep_run_id=self.run.id,
            leaderboard=page if page.is_file() else None,
        )

    def _finalize(self) -> bool:
        """Publish the results and return whether every expected job completed."""
        outcomes, expected = read_outcomes(self.folder), self.progress.total_jobs
        self._write_jobs(outcomes)
        if outcomes:  # none if Hydra refused the command line
            self._publish_leaderboard(outcomes)
        if 0 < len(outcomes) < expected:
            show(f"{expected - len(outcomes)} of {expected} jobs have not started. Run the same command again to start them.")
        best_by_rows = best_outcomes(outcomes, self.metric)
        if len(best_by_rows) == 1:  # scores of different rows cannot be compared
            best = best_by_rows[0]
            tags = {tracking_tags.BEST_RUN: str(best.run_id)}
            self.run.log(metrics={self.metric: best.metrics[self.metric]}, tags=tags)
        # An equal sweep may read the bundle in this folder, or remove the one that this sweep reads: one at a time.
        with machine_lock(self.store.client.uri, kind="bundles"):
            for best in best_by_rows:
                self._log_best_run(best)
            self._clean_up()
        return 0 < len(outcomes) >= expected and all(outcome.status in COMPLETED for outcome in outcomes)

    def _write_jobs(self, outcomes: list[Outcome]) -> None:
        with atomic_write(self.folder / JOBS_FILE) as partial:
            partial.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=2) + "\n", encoding="utf-8")

    def _publish_leaderboard(self, outcomes: list[Outcome]) -> None:
        """Print the leaderboard, write its files, and log them with the list of jobs."""
        settings = self.settings
        ranking = Ranking(
            title=self._title,
            outcomes=outcomes,
            objectives=settings.objectives,
            unit=settings.unit,
            promote_command=settings.promote_command(self.run.id),
        )
        printing.show_leaderboard(ranking)
        paths = leaderboard.write(ranking, self.folder, settings.figures)
        console.show_file(paths[-1])
        for path in (self.folder / JOBS_FILE, *paths):
            self.run.log_file(path)

    def _log_best_run(self, best: Outcome) -> None:
        """Log bundle and figures of the best run, unless the sweep that fitted it has removed the bundle.

        Promotion fits such a run again if the store does not hold its bundle.
        """
        record = self.store.runs.get(str(best.run_id))
        folder = Path(record.tags.get(tracking_tags.FOLDER, ""))
        outcome = Outcome.read(folder)
        if outcome is None or outcome.run_id != record.id or not (folder / BUNDLE).is_dir():
            return  # whoever can write to the store can change the tag, so the folder has to name the run, too
        try:
            self._log_files(record, folder)
        except (OSError, BundleError):
            if (folder / BUNDLE).is_dir():
                raise
            show("The sweep that fitted the best run has removed its bundle meanwhile, so this sweep logs no figures of it.")

    def _log_files(self, record: RunRecord, folder: Path) -> None:
        bundle = Bundle.read(folder / BUNDLE)
        if tracking_tags.MODEL_ID not in record.tags:
            log_bundle(record.run, folder, bundle)
        if self.settings.figures:
            HydraConfig.instance().set_config(self.config)  # its folders say which functions a stored config may name
            cfg = self.store.artifacts.read_config(record.id)
            table = load(cfg)
            holdout = HoldoutPredictions.read(folder / HOLDOUT)
            record.run.log_directory(run_figures.draw(bundle, holdout, table, split(table, cfg.split), folder / FIGURES), FIGURES)

    def _clean_up(self) -> None:
        """Remove the jobs' bundles, which the store has or no command needs, and temporary files of killed processes."""
        for temporary in self.folder.glob("*/.*"):
            if temporary.is_dir():
                shutil.rmtree(temporary)
            else:
                temporary.unlink(missing_ok=True)
        for folder in (*self.folder.glob(f"*/{BUNDLE}"), *self.folder.glob(f"*/{HOLDOUT}")):
            shutil.rmtree(folder.rename(folder.with_name(f".{folder.name}")))  # at once for another sweep that reads it


def _describe_live_page(port: int) -> str:
    """Return where the page of the running sweep is, also for whoever is logged in from another machine."""
    tunnel = f"ssh -L {port}:{ADDRESS}:{port} {socket.gethostname()}"
    return f"Page of the running sweep: http://{ADDRESS}:{port}/ (from another machine: {tunnel})"


def _print_error(error: str) -> None:
    print(f"error: {error}\nFix the problem and run the same command again; finished jobs are reused.", file=sys.stderr)


def has_outcomes(folder: Path) -> bool:
    """Return whether a sweep's folder has a job that started."""
    return next(folder.glob(f"*/{OUTCOME_FILE}"), None) is not None


def read_outcomes(folder: Path) -> list[Outcome]:
    """Return the outcomes of all jobs of a sweep that has ended, in order. A job that ended without a result is LOST."""
    return [_as_ended(outcome) for outcome in read_running_outcomes(folder)]


def read_running_outcomes(folder: Path) -> list[Outcome]:
    """Return the outcomes of all jobs in a sweep's folder that started, in order."""
    jobs = sorted((path.parent for path in folder.glob(f"*/{OUTCOME_FILE}")), key=lambda job: (len(job.name), job.name))
    return [_read_outcome(job) for job in jobs]


def _read_outcome(job: Path) -> Outcome:
    outcome = Outcome.read(job)
    assert outcome is not None, job
    return replace(outcome, job=int(job.name) if job.name.isdecimal() else None)


def _as_ended(outcome: Outcome) -> Outcome:
    return outcome if outcome.status != "RUNNING" else replace(outcome, status="LOST", error=tracking_tags.CRASH_MESSAGE)
