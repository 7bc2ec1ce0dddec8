"""Move an alias back to the version that served before.

python -m housing.rollback
"""

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.command_line.output import Result


@command("rollback")
def main(cfg: DictConfig) -> Result:
    """Roll back and print the decision. Exit with code 1 if the server (`serve.url`) does not serve the version in time."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.promotion import printing
    from housing.promotion.rolling_back import rollback

    decision = rollback(cfg)
    printing.show_decision(decision, cfg.registered_model)
    return Result(decision, exit_code=int(cfg.serve.url is not None and not decision.served_at))


if __name__ == "__main__":
    main()
