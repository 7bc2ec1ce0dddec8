"""Request IDs: time, worker id and counter.

0193f5c2a1b3-01-0000002a: milliseconds since 1970, the worker id and a counter, all hexadecimal.
"""

import itertools
import re
import time
from collections.abc import Callable

REQUEST_ID_PATTERN = re.compile(r"([0-9a-f]{12})-([0-9a-f]{2})-[0-9a-f]{8}", re.ASCII)


def make_id_generator(worker_id: int) -> Callable[[], str]:
    """Return a thread-safe function that returns the next request ID of a worker."""
    counter = itertools.count()

    def next_id() -> str:
        return f"{time.time_ns() // 1_000_000:012x}-{worker_id:02x}-{next(counter) & 0xFFFFFFFF:08x}"

    return next_id


def parse_request_id(request_id: str) -> tuple[float, int]:
    """Return the time (Unix seconds) and the worker id of a request ID. Raises ValueError for an invalid one."""
    match = REQUEST_ID_PATTERN.fullmatch(request_id)
    if match is None:
        raise ValueError("Not a request ID such as 0193f5c2a1b3-01-0000002a.")
    return int(match[1], 16) / 1000, int(match[2], 16)
