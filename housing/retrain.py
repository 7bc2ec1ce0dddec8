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
    from housing.operations.retraining import retrain

    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that subprocesses are stopped too
    summary = retrain(cfg)
    show(f"\n{summary.to_markdown()}")
    return Result(summary)


if __name__ == "__main__":
    main()
