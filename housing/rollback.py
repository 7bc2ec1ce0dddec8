"""Entry: give the servers back the version that they had before.

python -m housing.rollback
"""

import sys

from omegaconf import DictConfig

from housing.core.command import command
from housing.promotion import printing
from housing.promotion.rolling_back import rollback


@command("rollback")
def main(cfg: DictConfig) -> None:
    """Roll back and print that. Exit code 1 where nothing was moved, or where the server does not answer with the version."""
    decision = rollback(cfg)
    printing.show_decision(decision, cfg.registered_model)
    if cfg.serve.url is not None and not decision.served_at:
        sys.exit(1)


if __name__ == "__main__":
    main()
