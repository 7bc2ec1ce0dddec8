"""Fit a finished run again from its own config, and check that the result is the same.

python -m housing.reproduce run_id=ID
"""

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.command_line.output import Result


@command("reproduce")
def main(cfg: DictConfig) -> Result:
    """Print both runs side by side. The exit code is 1 if a score differs."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.runs import printing
    from housing.runs.comparison import Reproduction
    from housing.runs.reproduction import COMPARED_SCORES, reproduce

    comparisons = reproduce(cfg)
    printing.show_comparison(comparisons, cfg.run_id)
    is_equal = all(row.is_equal for row in comparisons if row.name in COMPARED_SCORES)
    return Result(Reproduction(cfg.run_id, is_equal, comparisons), exit_code=int(not is_equal))


if __name__ == "__main__":
    main()
