"""A fixture for commands that end before they start."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def refuse(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A function that runs a command in this process, which is faster, and returns the message with which it ends."""

    def run(name: str, *arguments: str) -> str:
        main = importlib.import_module(f"housing.{name}").main
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with (home / "stderr").open("w", encoding="utf-8") as stream:
            monkeypatch.setattr(sys, "stderr", stream)  # the command wraps its buffer
            with pytest.raises(SystemExit) as exit_info:
                main()
        assert os.environ.get("HYDRA_FULL_ERROR") is None
        assert str(exit_info.value.code).startswith("error: ")
        return str(exit_info.value.code).removeprefix("error: ")

    return run
