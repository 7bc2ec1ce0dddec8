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

from housing.core.command import command
from housing.core.config import SWEEP_RUN


@command("train")
def main(cfg: DictConfig) -> float:
    """Run one job and return the metric that a sweeper compares."""
    # pylint: disable=import-outside-toplevel  # --help need not wait for libraries
    from housing.runs import printing, run
    from housing.runs.export import export

    hydra = HydraConfig.get()
    job = run.Job(list(hydra.overrides.task), Path(hydra.runtime.output_dir), os.environ.get(SWEEP_RUN))
    outcome = run.run(cfg, job)
    if job.parent is None:
        printing.show_outcome(outcome, cfg)
    if cfg.export is not None:
        export(cfg, outcome, Path(cfg.export))
    return outcome.metrics.get(cfg.metric, float("inf"))


def cli() -> None:
    """Run Hydra; when a sweep is over, however it ended, write down what came of it."""
    signal.signal(signal.SIGTERM, _handle_sigterm)
    interrupted, code = True, 0
    try:
        main()
        interrupted = False
        _require_jobs()
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except SystemExit as error:
        interrupted = isinstance(error.code, int) and error.code > 128
        raise
    finally:
        if SWEEP_RUN in os.environ:
            closed = _close_sweep(interrupted)  # whatever the code is already
            code = code or closed
    sys.exit(code)


def _require_jobs() -> None:
    """End with an error where Hydra made no job of a sweep's command line, which it does not tell."""
    from housing.sweeps.sweep import Sweep  # pylint: disable=import-outside-toplevel  # --help need not wait for libraries

    if Sweep.current is not None and not Sweep.current.outcomes():
        sys.exit("error: the sweep has no job, since an override gives no value, as range(5,5) does")


def _close_sweep(interrupted: bool) -> int:
    """Close the sweep of this process, and give its exit code."""
    from housing.sweeps.sweep import Sweep  # pylint: disable=import-outside-toplevel  # --help need not wait for libraries

    if Sweep.current is None or Sweep.current.close(interrupted):
        return 0
    return 1


def _handle_sigterm(number: int, _frame: FrameType | None) -> None:
    """Let a sweep that is told to stop close what it has open."""
    sys.exit(128 + number)


if __name__ == "__main__":
    cli()
