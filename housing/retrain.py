"""Entry: from a new version of the table to a better model at the alias: pull, check, sweep, gate, push, publish.

python -m housing.retrain data=california
"""

import signal
import sys

from omegaconf import DictConfig

from housing.core.command import command
from housing.operations.retraining import retrain


@command("retrain")
def main(cfg: DictConfig) -> None:
    """Retrain, and print what came of it."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    print(f"\n{retrain(cfg).to_markdown()}")


if __name__ == "__main__":
    main()
