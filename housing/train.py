"""Entry: fit one model, or sweep over many.

python -m housing.train -m model=linear,decision_tree,xgboost
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from housing.config import SWEEP_RUN, command


@command("train")
def main(cfg: DictConfig) -> float:
    """Run one job and return the metric that a sweeper compares."""
    from housing import report, run  # pylint: disable=import-outside-toplevel  # --help need not wait for libraries

    hydra = HydraConfig.get()
    job = run.Job(list(hydra.overrides.task), Path(hydra.runtime.output_dir), os.environ.get(SWEEP_RUN))
    outcome = run.run(cfg, job)
    if job.parent is None:
        report.show_outcome(outcome, cfg)
    else:
        report.show_job(outcome)
    return outcome.metrics[cfg.metric]


def cli() -> None:
    """Run Hydra; when a sweep is over, however it ended, write down what came of it."""
    complete = True
    signal.signal(signal.SIGTERM, _end)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    finally:
        if SWEEP_RUN in os.environ:
            from housing.sweep import Sweep  # pylint: disable=import-outside-toplevel  # as above

            complete = Sweep.current is None or Sweep.current.close()
    if not complete:
        sys.exit(1)


def _end(number: int, _frame: FrameType | None) -> None:
    """Let a sweep that is told to stop close what it has open."""
    sys.exit(128 + number)


if __name__ == "__main__":
    cli()
