"""Ids of requests: when, by which worker, and which of that worker's.

0193f5c2a1b3-01-0000002a: milliseconds since 1970, the worker's slot, a counter, all hexadecimal.
"""

import itertools
import re
import time
from collections.abc import Callable

REQUEST_ID_PATTERN = re.compile(r"([0-9a-f]{12})-([0-9a-f]{2})-[0-9a-f]{8}", re.ASCII)


def make_id_generator(worker_id: int) -> Callable[[], str]:
    """Give a function that makes the next id of a worker; any thread may call it."""
    counter = itertools.count()

    def next_id() -> str:
        return f"{time.time_ns() // 1_000_000:012x}-{worker_id:02x}-{next(counter) & 0xFFFFFFFF:08x}"

    return next_id


def parse_request_id(request_id: str) -> tuple[float, int]:
    """Give the time (unix seconds) and the slot that an id names. Raises ValueError for what is not an id."""
    found = REQUEST_ID_PATTERN.fullmatch(request_id)
    if found is None:
        raise ValueError("is not a request id, such as 0193f5c2a1b3-01-0000002a")
    return int(found[1], 16) / 1000, int(found[2], 16)
