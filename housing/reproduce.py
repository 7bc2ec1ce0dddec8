"""Entry: fit a run again from its own config, and tell whether it comes out the same.

python -m housing.reproduce run_id=ID
"""

import sys

from omegaconf import DictConfig

from housing.core.command import command
from housing.runs import printing
from housing.runs.reproduction import COMPARED_SCORES, reproduce


@command("reproduce")
def main(cfg: DictConfig) -> None:
    """Print what is the same and what is not; exit code 1 where a score differs."""
    compared = reproduce(cfg)
    printing.show_comparison(compared, cfg.run_id)
    if not all(row.is_equal for row in compared if row.name in COMPARED_SCORES):
        sys.exit(1)


if __name__ == "__main__":
    main()
