"""Printed health checks."""

from collections.abc import Iterable

from housing.command_line.console import create_console
from housing.core.printable import show
from housing.operations.health_checks import PASSED, SKIPPED, CheckResult, HealthReport

MARKS = {PASSED: ("ok", ""), SKIPPED: ("-", "dim")}
FAILED_MARK = ("FAILED", "bold red")


def show_checks(results: Iterable[tuple[str, CheckResult]]) -> HealthReport:
    """Print each result as it arrives, and return all of them."""
    checks: dict[str, CheckResult] = {}
    for name, result in results:
        _show_check(name, result)
        checks[name] = result
    failed = [name for name, result in checks.items() if result.failed]
    if not failed:
        show("All checks passed.")
    return HealthReport(checks, failed)


def _show_check(name: str, result: CheckResult) -> None:
    mark, style = MARKS.get(result.state, FAILED_MARK)
    console = create_console()
    console.print(f"{mark:>6}  {name:<12}{result.message}", style=style, soft_wrap=True)
    if result.hint:
        console.print(f"{'':>6}  {'':<12}fix: {result.hint}", soft_wrap=True)
