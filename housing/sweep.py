"""A sweep: the ordered list of its jobs and what came of each, reused runs included.

Hydra's sweepers and launchers run the jobs, in this process or in others; each job leaves an outcome in its folder.
The parent opens the sweep's own run before the first job, and closes it when Hydra is through, however it ended.
"""

import json
import os
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from housing import data, figures, report, tracking
from housing.bundle import Bundle
from housing.config import SWEEP_RUN, USER_ERRORS
from housing.files import written_whole
from housing.records import OUTCOME, Outcome
from housing.run import BUNDLE, CONFIG, FIGURES
from housing.split import split
from housing.tracking import Run

LIST = "sweep.json"


class Sweep(Callback):
    """The sweep of this process, from Hydra's notice that it begins until it is closed."""

    current: ClassVar[Self | None] = None

    cfg: DictConfig
    folder: Path
    run: Run

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Make the store and open the sweep's run before any job needs them; tell the jobs by environment."""
        self.cfg, self.folder = config, Path(config.hydra.sweep.dir)
        tags = {tracking.KIND: "sweep", "housing.overrides": " ".join(config.hydra.overrides.task)[:1000]}
        try:
            self.run = tracking.connect(config.mlflow).open_run(config.experiment_name, f"sweep {self.folder.name}", tags)
        except USER_ERRORS as error:  # Hydra would make a warning of it and go on
            sys.exit(f"error: {error}")
        os.environ[SWEEP_RUN] = self.run.id
        Sweep.current = self

    def close(self) -> bool:
        """Write the list, show the leaderboard, keep the best run's bundle and figures; say whether every job finished."""
        outcomes = self.outcomes()
        complete = bool(outcomes) and all(outcome.status == "FINISHED" for outcome in outcomes)
        try:
            self._write_list(outcomes)
            if outcomes:  # none were begun where Hydra refused the command line
                report.show_leaderboard(outcomes, self.cfg, self.run.id)
            best = best_of(outcomes, self.cfg.metric)
            if best is not None:
                self.run.log(metrics={self.cfg.metric: best.metrics[self.cfg.metric]}, tags={"housing.best": str(best.run_id)})
                self._keep(best)
        finally:
            if not complete:
                self.run.store.kill_children(self.run)
            self.run.close("FINISHED" if complete else "FAILED")
            for bundle in self.folder.glob(f"*/{BUNDLE}"):
                shutil.rmtree(bundle)
        return complete

    def _write_list(self, outcomes: list[Outcome]) -> None:
        with written_whole(self.folder / LIST) as partial:
            partial.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=2) + "\n", encoding="utf-8")
        self.run.file(self.folder / LIST)

    def outcomes(self) -> list[Outcome]:
        """Give what came of each job that was begun, in order; a job that left nothing is LOST."""
        jobs = sorted((path.parent for path in self.folder.glob(f"*/{OUTCOME}")), key=lambda job: (len(job.name), job.name))
        return [_read_outcome(job) for job in jobs]

    def _keep(self, best: Outcome) -> None:
        """See that the best run has its bundle and its figures, whatever the other runs keep."""
        known = self.run.store.get(str(best.run_id))
        run = known.run
        folder = next(
            (path.parent / BUNDLE for path in self.folder.glob(f"*/{OUTCOME}") if _read_outcome(path.parent) == best), None
        )
        if folder is None or not folder.is_dir():
            return  # reused: promote fits it again where the sweep that fitted it did not keep it
        bundle = Bundle.read(folder)
        if tracking.MODEL_ID not in known.tags:
            run.bundle(folder, bundle.schema)
        if self.cfg.figures:
            job = OmegaConf.load(folder.parent / CONFIG / "config.yaml")
            table = data.load(job.data, job.limit)
            run.files(figures.draw(bundle, table, split(table, job.split).valid, folder.parent / FIGURES), FIGURES)


def best_of(outcomes: list[Outcome], metric: str) -> Outcome | None:
    """Give the finished outcome with the least metric, or None where none finished."""
    finished = [outcome for outcome in outcomes if outcome.status == "FINISHED"]
    return min(finished, key=lambda outcome: outcome.metrics[metric], default=None)


def _read_outcome(job: Path) -> Outcome:
    outcome = Outcome(**json.loads((job / OUTCOME).read_text(encoding="utf-8")))
    if outcome.status != "RUNNING":
        return outcome
    return replace(outcome, status="LOST", error="the job ended without a word: killed, or out of memory?")
