"""TODO docstring."""

import time
from collections.abc import Callable

SECONDS = 120  # for anything that is waited for


def wait_for(holds: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    """Wait until a condition holds; the test fails where it never does."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"waited {seconds} s for: {what}"
        time.sleep(0.05)
