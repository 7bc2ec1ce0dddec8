"""Check everything that training, promotion and serving need, and print how to fix each problem.

python -m housing.doctor
"""

import sys

from omegaconf import DictConfig

from housing.command_line.command import command
from housing.command_line.output import Result


@command("doctor")
def main(cfg: DictConfig) -> Result:
    """Print the result of each check. Exit with code 1 if a check failed."""
    # pylint: disable=import-outside-toplevel  # --help must not wait for libraries
    from housing.operations import printing
    from housing.operations.health_checks import run_checks

    report = printing.show_checks(run_checks(cfg))
    if report.failed:
        print(
            f"{len(report.failed)} check{'s' if len(report.failed) > 1 else ''} failed: {', '.join(report.failed)}",
            file=sys.stderr,
        )
    return Result(report, exit_code=int(bool(report.failed)))


if __name__ == "__main__":
    main()
