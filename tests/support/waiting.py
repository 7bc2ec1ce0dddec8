"""Polling for a condition instead of sleeping."""

import time
from collections.abc import Callable

SECONDS = 120  # default timeout


def wait_for(condition: Callable[[], bool], description: str, seconds: float = SECONDS) -> None:
    """Wait until a condition holds, and fail the test after a timeout."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"timed out after {seconds} s waiting for: {description}"
        time.sleep(0.05)
