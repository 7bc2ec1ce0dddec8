"""Console output: the width of a terminal, and the line that names a written file."""

from pathlib import Path

from rich.console import Console

WIDE_TERMINAL = 120  # characters per line from which on the leaderboard and the history show all columns


def create_console() -> Console:
    """Return a console that does not wrap lines in redirected output."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 140)  # Rich assumes 80 characters per line in a log file, where nothing has to wrap
    return console


def show_file(path: Path) -> None:
    """Print the path of a file that was written."""
    create_console().print(f"written: {path}", soft_wrap=True)
