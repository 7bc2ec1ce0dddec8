"""Console output: text that is shown literally, the width of a terminal, and the line that names a written file."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from housing.core.printable import printable, show

FILE_WIDTH = 140  # characters per line of tables in a file or a pipe, unless the environment variable COLUMNS is set
WIDE_TERMINAL = 120  # characters per line from which on the leaderboard and the history show all columns
TRAILING_SPACES = re.compile(" +$", re.MULTILINE)


class LiteralConsole(Console):
    """A console that shows foreign text literally: markup is text, and control characters are escapes."""

    def __init__(self) -> None:
        # if NO_COLOR is set, Rich by itself still prints bold text
        super().__init__(highlight=False, markup=False, emoji=False, color_system=None if os.environ.get("NO_COLOR") else "auto")

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as Rich does, but without the spaces with which it fills lines of redirected output."""
        if self.is_terminal:
            super().print(*objects, **options)
            return
        with self.capture() as text:
            super().print(*objects, **options)
        self.file.write(TRAILING_SPACES.sub("", text.get()))

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as Rich shows it. Rich calls this for all strings, also for those in tables."""
        return super().render_str(printable(text), **options)


def create_console() -> Console:
    """Return a console for foreign text. In redirected output, its width does not depend on the terminal."""
    console = LiteralConsole()
    if not console.is_terminal and not os.environ.get("COLUMNS", "").isdigit():
        console.width = FILE_WIDTH
    return console


def clipped_line(text: str, style: str) -> Text:
    """Return one line that is cut off at the width of the terminal."""
    return Text(printable(text), style=style, overflow="ellipsis", no_wrap=True)


@dataclass(frozen=True)
class WrittenFile:
    """A file that a command has written."""

    path: Path


def show_file(path: Path) -> None:
    """Print the path of a file that was written."""
    show(f"written: {path}")
