"""Retrain on the current table: download, check, sweep, promote, push the table.

python -m housing.retrain data=california
"""

import signal
import sys

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.core.printable import show


@command("retrain")
def main(cfg: DictConfig) -> None:
    """Retrain and print the summary."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.operations.retraining import retrain

    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that subprocesses are stopped too
    show(f"\n{retrain(cfg).to_markdown()}")


if __name__ == "__main__":
    main()
