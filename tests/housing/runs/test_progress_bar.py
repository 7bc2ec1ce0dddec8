"""Progress of a batch prediction: the rows done on a terminal, and nothing elsewhere."""

import os
import pty
import subprocess
import sys

import pytest

SCRIPT = """
from housing.runs.progress_bar import row_progress
with row_progress() as show:
    show(16_000)
    show(32_000)
print("done")
"""


def test_a_terminal_shows_the_rows_that_are_done() -> None:
    master, terminal = pty.openpty()
    subprocess.run(
        [sys.executable, "-c", SCRIPT], stdout=terminal, stderr=terminal, check=True, env={**os.environ, "TERM": "xterm"}
    )
    os.close(terminal)
    shown = os.read(master, 100_000).decode()
    os.close(master)
    assert "32,000 rows predicted" in shown and "done" in shown


@pytest.mark.parametrize("force", [{}, {"TERM": "xterm"}])
def test_redirected_output_has_no_progress(force: dict[str, str]) -> None:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env={**os.environ, **force}
    )
    assert (result.stdout, result.stderr) == ("done\n", "")
