"""Progress bar of commands that read a log: its bytes that were read."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from housing.command_line.console import create_console
from housing.traffic.logged_rows import OnBytes


@contextmanager
def log_progress(total: int) -> Iterator[OnBytes]:
    """Show how much of `total` bytes was read until the block ends, if the output is a terminal."""
    console = create_console()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("prediction log", total=total)
        yield lambda n_bytes: progress.advance(task, n_bytes)
