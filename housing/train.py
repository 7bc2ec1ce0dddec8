"""Fit one model, or run a sweep over several.

python -m housing.train -m model=linear,decision_tree,xgboost
"""

import sys
from pathlib import Path

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.sweeps import lifecycle


@command("train")
def main(cfg: DictConfig) -> float:
    """Run one job and return its metric, such that lower is better, as a sweep of another sweeper minimizes it."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.runs import export, printing, run
    from housing.training.metrics import as_loss

    lifecycle.exit_if_terminated()
    job = run.Job.from_hydra()
    if "candidates" in cfg:
        from housing.automl.search import search

        cfg = search(cfg, job)
    outcome = run.run(cfg, job)
    if job.is_standalone:
        printing.show_outcome(outcome, cfg)
    if cfg.export is not None:
        export.export(cfg, outcome, Path(cfg.export))
    return as_loss(cfg.metric, outcome.metrics[cfg.metric]) if cfg.metric in outcome.metrics else float("inf")


def cli() -> None:
    """Run the command and exit with its code, after its sweep is closed."""
    sys.exit(lifecycle.run_and_close(main))


if __name__ == "__main__":
    cli()
