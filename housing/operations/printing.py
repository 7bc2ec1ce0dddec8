"""Printed health checks."""

from collections.abc import Iterable

from housing.command_line.console import create_console
from housing.core.printable import show
from housing.operations.cleaning import Cleaned
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


def show_cleaning(cleaned: Cleaned, removing_command: str) -> None:
    """Print disk use by kind, and what was removed, or would be by a command."""
    for kind, size in cleaned.disk_use.items():
        show(f"{size / 1e6:>12,.1f} MB  {kind}")
    verb = "would be removed" if cleaned.is_dry_run else "removed"
    show(f"{len(cleaned.runs):,} runs {verb}, {cleaned.kept_runs:,} kept")
    show(f"{len(cleaned.folders):,} folders of these runs {verb}: {cleaned.freed / 1e6:,.1f} MB")
    if cleaned.left_folders:
        show(f"{cleaned.left_folders:,} old folders stay: they name no run of this table in the store")
    if cleaned.is_dry_run and (cleaned.runs or cleaned.folders):
        show(f"Nothing was removed. To remove it: {removing_command}")
    elif cleaned.runs:
        show("`mlflow gc` removes runs and bundles for good. Until then `mlflow runs restore` restores runs, without bundles.")


def _show_check(name: str, result: CheckResult) -> None:
    mark, style = MARKS.get(result.state, FAILED_MARK)
    console = create_console()
    console.print(f"{mark:>6}  {name:<12}{result.message}", style=style, soft_wrap=True)
    if result.hint:
        console.print(f"{'':>6}  {'':<12}fix: {result.hint}", soft_wrap=True)
