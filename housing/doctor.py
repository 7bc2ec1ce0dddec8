"""Entry: look at everything that training, promotion and serving need, and say how to mend what is not right.

python -m housing.doctor
"""

import sys

from omegaconf import DictConfig

from housing.core.command import command
from housing.operations import printing
from housing.operations.health_checks import CHECKS, FAILED, SKIPPED, CheckResult, run_check


@command("doctor")
def main(cfg: DictConfig) -> None:
    """Print what each check found; end with exit code 1 where something is not right."""
    ailments: dict[CheckResult, str] = {}
    for check in CHECKS:
        found = run_check(check, cfg)
        if found in ailments:  # what several checks need is mended once
            found = CheckResult(SKIPPED, f"needs {ailments[found]}")
        elif found.state == FAILED:
            ailments[found] = check.__name__
        printing.show_check(check.__name__, found)
    if ailments:
        sys.exit(f"not right: {', '.join(ailments.values())}")
    print("all is right")


if __name__ == "__main__":
    main()
