"""TODO docstring."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from housing.training.callbacks import OnRound, no_op

REFRESH_SECONDS = 0.25  # seconds between two looks


@contextmanager
def boosting_progress(enabled: bool) -> Iterator[OnRound]:
    """Show the rounds of boosting as a bar on a terminal, where that is wanted, for as long as the block lasts."""
    console = Console(highlight=False)
    if not (enabled and console.is_terminal):
        yield no_op
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[score]}"))
    with Progress(*columns, console=console, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def show(member: str, done: int, total: int, score: float | None) -> None:
            if member not in tasks:
                tasks[member] = progress.add_task(member, total=total, score="")
            told = "" if score is None else f"watched {score:.4f}"
            progress.update(tasks[member], completed=done, total=total, score=told)

        yield show
