"""TODO docstring."""

from housing.core.console import _console
from housing.operations.health_checks import PASSED, SKIPPED, CheckResult


def show_check(name: str, result: CheckResult) -> None:
    """Print what a check found, and below it what mends it."""
    mark, style = {PASSED: ("ok", "green"), SKIPPED: ("-", "dim")}.get(result.state, ("NOT RIGHT", "bold red"))
    console = _console()
    console.print(
        f"{mark:>9}  {name:<12}{result.message}", style=style if result.state != PASSED else "", markup=False, soft_wrap=True
    )
    if result.hint:
        console.print(f"{'':>9}  {'':<12}mend it: {result.hint}", markup=False, soft_wrap=True)
