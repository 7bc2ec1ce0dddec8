"""TODO docstring."""

from housing.core.console import _console
from housing.operations.health_checks import ABSENT, GOOD, Found


def show_found(what: str, found: Found) -> None:
    """Print what a check found, and below it what mends it."""
    mark, style = {GOOD: ("ok", "green"), ABSENT: ("-", "dim")}.get(found.state, ("NOT RIGHT", "bold red"))
    console = _console()
    console.print(f"{mark:>9}  {what:<12}{found.what}", style=style if found.state != GOOD else "", markup=False, soft_wrap=True)
    if found.remedy:
        console.print(f"{'':>9}  {'':<12}mend it: {found.remedy}", markup=False, soft_wrap=True)
