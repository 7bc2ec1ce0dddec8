"""TODO docstring."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.table import Table

from housing.core.console import _console
from housing.data.drift import Drift
from housing.data.new_rows import BadRow

NO_DRIFT = "as before"  # of a column without drift


def show_bad_rows(bad_rows: Sequence[BadRow], file: Path) -> None:
    """Print each row of a file that does not fit its table, and why."""
    console = _console()
    for row in bad_rows:
        console.print(f"{file}, {row}", style="red", markup=False, soft_wrap=True)


def show_drift(drifts: Sequence[Drift], rows: int, present: int, cfg: DictConfig) -> None:
    """Print how new rows differ from the present ones, column by column, and a sentence for each that does."""
    console = _console()
    grid = Table(title=f"how {rows:,} new rows differ from the {present:,} present ones", title_justify="left")
    for name in ("column", "PSI", "by chance up to", "present", "new", "out of range", ""):
        grid.add_column(name, justify="right" if name in ("PSI", "by chance up to", "out of range") else "left", overflow="fold")
    for one in drifts:
        judged = _drift_level(one, cfg)
        figures = (f"{one.psi:.3f}", f"{one.psi_threshold:.3f}", one.reference, one.current, f"{one.out_of_range:,}")
        grid.add_row(one.column, *figures, judged, style="" if judged == NO_DRIFT else "yellow")
    console.print(grid)
    for one in drifts:
        if _drift_level(one, cfg) != NO_DRIFT:
            outside = f"; {one.out_of_range:,} rows are out of the present range" if one.out_of_range else ""
            sentence = f"{one.column} is {_drift_level(one, cfg)}: {one.current}, it was {one.reference}{outside}"
            console.print(f"- {sentence}", markup=False, soft_wrap=True)


def _drift_level(drift: Drift, cfg: DictConfig) -> str:
    """Say in words how far a column is off: not at all where chance can do that."""
    if drift.psi <= max(drift.psi_threshold, cfg.drift.moderate):
        return NO_DRIFT
    return "very different" if drift.psi > cfg.drift.large else "different"
