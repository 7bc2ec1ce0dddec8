"""A sweep that waits for an equal one, so that both close at the same time.

python -m tests.support.paused_sweep STEPS fits|reads OVERRIDES...

The sweep that `fits` the jobs waits before it closes until the other one is reading the bundle of the best run. The sweep
that `reads` the bundle waits before it does so until the first one is about to remove the bundle, or has ended. STEPS is a
directory in which each sweep leaves a file for each step.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from housing import train
from housing.bundle.bundle import Bundle
from housing.core.locks import machine_lock
from housing.sweeps import sweep
from tests.support.waiting import wait_for


def before(function: Callable[..., Any], action: Callable[[], None]) -> Callable[..., Any]:
    """Return the function with an action before each call."""

    def wrapped(*arguments: Any, **named: Any) -> Any:
        action()
        return function(*arguments, **named)

    return wrapped


@contextmanager
def marked(path: Path) -> Iterator[None]:
    """Create a file when the block ends, in any case."""
    try:
        yield
    finally:
        path.touch()


def main() -> None:
    """Run the sweep."""
    steps, role = Path(sys.argv.pop(1)), sys.argv.pop(1)

    def close() -> None:
        (steps / "closing").touch()
        wait_for((steps / "reading").exists, "the other sweep reads the bundle")

    def read() -> None:
        (steps / "reading").touch()
        wait_for(lambda: (steps / "removing").exists() or (steps / "ended").exists(), "the other sweep is about to clean up")

    patch = pytest.MonkeyPatch()
    if role == "reads":
        patch.setattr(Bundle, "read", before(Bundle.read, read))
        train.main()
    patch.setattr(sweep.Sweep, "close", before(sweep.Sweep.close, close))
    patch.setattr(sweep, "machine_lock", before(machine_lock, (steps / "removing").touch))
    with marked(steps / "ended"):
        train.main()


if __name__ == "__main__":
    main()
