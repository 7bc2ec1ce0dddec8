"""Print the decision log: which version moved to an alias, when, who moved it, and why.

python -m housing.history
"""

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.command_line.output import Result


@command("history")
def main(cfg: DictConfig) -> Result:
    """Print the latest decisions, newest first."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.command_line import console
    from housing.promotion import printing
    from housing.promotion.history import read_history

    history = read_history(cfg)
    printing.show_history(history.decisions, cfg.tsv)
    if history.file is not None:
        console.show_file(history.file)
    return Result(history)


if __name__ == "__main__":
    main()
