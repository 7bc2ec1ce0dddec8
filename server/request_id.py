"""Ids of requests: they tell when a request was answered, by which worker, and which of its requests it was."""

import os
import time
from itertools import count

_numbers = count()


def next_id() -> str:
    """Give milliseconds since 1970, the worker's process and a number, as hexadecimals; no two are the same on a machine."""
    return f"{time.time_ns() // 1_000_000:012x}-{os.getpid():x}-{next(_numbers):x}"
