"""Fit one model, or run a sweep over several.

python -m housing.train -m model=linear,decision_tree,xgboost
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.command_line.output import Result
from housing.sweeps import lifecycle

if TYPE_CHECKING:
    from housing.runs.run import Job

log = logging.getLogger(__name__)


def search_if_asked(cfg: DictConfig, job: "Job") -> DictConfig:
    """Return the config of the run: that of the ensemble which a search selects if the config has candidates, or else itself."""
    if "candidates" not in cfg:
        return cfg
    from housing.automl.search import search  # pylint: disable=import-outside-toplevel  # --help must not wait for libraries

    return search(cfg, job)


@command("train", lifecycle.run_and_exit)
def main(cfg: DictConfig) -> Result:
    """Run one job. Its objective is its metric, such that lower is better, as a sweep of another sweeper minimizes it."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.runs import export, printing
    from housing.runs.outcome import TrainingResult
    from housing.runs.run import Job, run
    from housing.scoring.metrics import as_loss

    lifecycle.exit_if_terminated()
    job = Job.from_hydra()
    if job.is_standalone and cfg.sweep.live:
        log.warning("sweep.live=true has no effect on a single run. Sweeps have -m in their command.")
    cfg = search_if_asked(cfg, job)
    outcome = run(cfg, job)
    if job.is_standalone:
        printing.show_outcome(outcome, cfg)
    if cfg.export is not None:
        export.export(cfg, outcome, Path(cfg.export))
    trained = TrainingResult(cfg.metric, str(job.folder), [outcome], best_run_id=outcome.run_id)
    loss = as_loss(cfg.metric, outcome.metrics[cfg.metric]) if cfg.metric in outcome.metrics else float("inf")
    return Result(trained, objective=loss)


if __name__ == "__main__":
    main()
