"""The notebook of the tutorials, executed as Jupyter executes it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from housing.core.environment import PROJECT

pytestmark = pytest.mark.long

TUTORIALS = PROJECT / "docs" / "tutorials"


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    """The cells with code of a notebook's file."""
    return [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def printed(cell: dict[str, Any]) -> str:
    """What a cell wrote to standard output."""
    return "".join("".join(output["text"]) for output in cell["outputs"] if output.get("name") == "stdout")


def test_the_notebook_runs_and_shows_progress(tmp_path: Path) -> None:
    pytest.importorskip("nbclient", reason="nbclient is not installed: locks/ci.txt")
    for name in ("notebook.ipynb", "rentals.csv"):
        shutil.copy(TUTORIALS / name, tmp_path)
    command = (sys.executable, "-m", "jupyter", "execute", "--output=executed", "notebook.ipynb")
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr

    assert not any(cell["outputs"] for cell in code_cells(TUTORIALS / "notebook.ipynb"))  # a diff shows what people wrote
    _, _, train, sweep, leaderboard, promote, predict, explain, serve, history = code_cells(tmp_path / "executed.ipynb")
    assert "\rxgboost: round " in printed(train)
    assert "3/3  model=xgboost" in printed(sweep) and "\\x1b" not in printed(sweep)
    shown = ["".join(cell["outputs"][-1]["data"]["text/html"]) for cell in (train, leaderboard, promote, predict, history)]
    assert all(
        words in html for words, html in zip(("fitted", "model=linear", "PROMOTE", "upper", "staging"), shown, strict=True)
    )
    answers = ["".join(cell["outputs"][-1]["data"]["text/plain"]) for cell in (explain, serve)]
    assert "shapley_value" in answers[0] and "'version': '1'" in answers[1]
