"""Console output of ingestion: rejected rows and drift."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from housing.command_line.console import create_console
from housing.ingestion.drift import Drift, DriftSettings
from housing.ingestion.new_rows import BadRow


def show_bad_rows(bad_rows: Sequence[BadRow], file: Path) -> None:
    """Print each row that does not fit the table, and why."""
    console = create_console()
    for row in bad_rows:
        console.print(f"{file}, {row}", style="red", soft_wrap=True)


def show_drift(drifts: Sequence[Drift], n_new: int, n_present: int, settings: DriftSettings) -> None:
    """Print the drift of each column as a table, and a sentence for each column that drifts."""
    console = create_console()
    grid = Table(title=f"Drift of {n_new:,} new rows against {n_present:,} present rows", title_justify="left")
    for name in ("column", "PSI", "chance", "present", "new", "out of range", "drift"):
        grid.add_column(name, justify="right" if name in ("PSI", "chance", "out of range") else "left", overflow="fold")
    for drift in drifts:
        level = drift.level(settings)
        figures = (f"{drift.psi:.3f}", f"{drift.psi_threshold:.3f}", drift.reference, drift.current, f"{drift.out_of_range:,}")
        grid.add_row(drift.column, *figures, level, style="" if level == "none" else "yellow")
    console.print(grid)
    for drift in drifts:
        level = drift.level(settings)
        if level != "none":
            outside = f"; {drift.out_of_range:,} rows out of the present range" if drift.out_of_range else ""
            sentence = f"{level} drift of {drift.column}: {drift.current} (present rows: {drift.reference}){outside}"
            console.print(f"- {sentence}", soft_wrap=True)
