"""Promote a model to an alias if it is significantly better on the test rows.

python -m housing.promote data=california
"""

from pathlib import Path

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.command_line.output import Result


@command("promote")
def main(cfg: DictConfig) -> Result:
    """Promote and print the decision. REJECT exits with code 1, unless the decision is written to a file (`out`)."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.promotion import printing
    from housing.promotion.decision import REJECT
    from housing.promotion.promotion import promote, write_decision

    decision = promote(cfg)
    printing.show_decision(decision, cfg.registered_model)
    if cfg.out is not None:
        write_decision(decision, Path(cfg.out))
    return Result(decision, exit_code=int(decision.verdict == REJECT and cfg.out is None))


if __name__ == "__main__":
    main()
