"""Retrain on the current table: download, check, sweep, promote, push the table.

python -m housing.retrain data=california
"""

import signal
import sys

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.command_line.output import Result
from housing.core.printable import show


@command("retrain")
def main(cfg: DictConfig) -> Result:
    """Retrain and print the summary."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.core.errors import HousingError
    from housing.operations.retraining import retrain
    from housing.operations.training_metrics import export_after_retraining

    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that subprocesses are stopped too
    try:
        summary = retrain(cfg)
    except HousingError:
        export_after_retraining(cfg)  # with the runs that failed
        raise
    export_after_retraining(cfg)
    show(f"\n{summary.to_markdown()}")
    return Result(summary)


if __name__ == "__main__":
    main()
