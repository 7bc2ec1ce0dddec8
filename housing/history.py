"""Print the decision log: which version moved to an alias, when, who moved it, and why.

python -m housing.history
"""

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.command_line.output import Result
from housing.core.validators import integer
from housing.tracking.aliases import require_declared_alias

MAX_LIMIT = 50_000  # of one request to MLflow


@command("history")
def main(cfg: DictConfig) -> Result:
    """Print the latest decisions, newest first."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.promotion import decision_log, printing
    from housing.tracking import store as tracking

    integer(1, MAX_LIMIT).validate("limit", cfg.limit)
    if cfg.alias is not None:
        require_declared_alias(cfg.alias, cfg.aliases)
    store = tracking.connect(cfg.mlflow)
    decisions = decision_log.list_decisions(store, cfg.decisions_experiment, cfg.alias, cfg.limit)
    printing.show_history(decisions, cfg.tsv)
    return Result(decision_log.History(decisions))


if __name__ == "__main__":
    main()
