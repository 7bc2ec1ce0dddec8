"""Threads that run during a block."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread


@contextmanager
def running_threads(threads: Sequence[Thread], stopping: Event) -> Iterator[None]:
    """Run threads during the block. At its end, set `stopping`, and wait until they have ended."""
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
