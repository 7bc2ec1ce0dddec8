"""Progress on a terminal or in a notebook: the boosting rounds of a single run, and the rows of a batch prediction."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from housing.command_line.console import create_console
from housing.core.printable import printable, show_over
from housing.fitting.callbacks import OnRound, no_op

REFRESH_SECONDS = 0.25


@contextmanager
def boosting_progress(enabled: bool) -> Iterator[OnRound]:
    """Show the rounds of boosting until the block ends, if enabled and the output is a terminal or a notebook."""
    console = create_console()
    if enabled and console.is_jupyter:
        with _notebook_line() as show_round:
            yield show_round
        return
    if not (enabled and console.is_terminal):
        yield no_op
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[score]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def show(member: str, done: int, total: int, score: float | None) -> None:
            if member not in tasks:
                tasks[member] = progress.add_task(printable(member), total=total, score="")
            progress.update(tasks[member], completed=done, total=total, score=_describe_score(score))

        yield show


@contextmanager
def _notebook_line() -> Iterator[OnRound]:
    """Show the rounds in a line of a cell's output that is written again and again, and cleared when the block ends.

    Rich's bar requires ipywidgets in a notebook.
    """
    shown_at, width = 0.0, 0

    def show(member: str, done: int, total: int, score: float | None) -> None:
        nonlocal shown_at, width
        if time.monotonic() - shown_at >= REFRESH_SECONDS:
            line = f"{member}: round {done} of {total}  {_describe_score(score)}".rstrip()
            show_over(f"{line:<{width}}")
            shown_at, width = time.monotonic(), max(width, len(line))

    try:
        yield show
    finally:
        if width:
            show_over(" " * width)
            show_over("")


def _describe_score(score: float | None) -> str:
    return "" if score is None else f"validation {score:.4f}"


@contextmanager
def row_progress() -> Iterator[Callable[[int], None]]:
    """Show the number of rows that are done until the block ends, if the output is a terminal."""
    console = create_console()
    if not console.is_terminal:
        yield no_op
        return
    columns = (TextColumn("{task.completed:,.0f} rows predicted"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)  # a file's rows are known at its end
        yield lambda n_rows: progress.update(task, completed=n_rows)
