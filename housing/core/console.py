"""What a command prints: the block of a run, the leaderboard of a sweep, the decision of the gate."""

from pathlib import Path

from rich.console import Console

WIDE_TERMINAL = 120  # columns of a terminal in which the whole leaderboard, or history, has room


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 140)  # a log file has no edge to wrap at
    return console


def show_file(path: Path) -> None:
    """Print where a file lies."""
    _console().print(f"written: {path}", soft_wrap=True)
