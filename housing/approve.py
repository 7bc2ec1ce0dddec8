"""Approve a promotion that another person has requested, and move the alias.

python -m housing.approve alias=production
"""

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.command_line.output import Result


@command("approve")
def main(cfg: DictConfig) -> Result:
    """Approve and print the decision."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.promotion import printing
    from housing.promotion.approval import approve

    decision = approve(cfg)
    printing.show_decision(decision, cfg.registered_model)
    return Result(decision)


if __name__ == "__main__":
    main()
