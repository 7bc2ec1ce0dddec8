"""The handover from replaced workers to their successors, in memory that gunicorn's master shares with all workers.

A worker's age is its number in the order of starts, from 1.
"""

import mmap
import struct

MAX_STARTS = 1_000_000  # of workers in the life of a master
_last_old_age = mmap.mmap(-1, 8)  # pages of memory are taken only when they are written
_ready = mmap.mmap(-1, MAX_STARTS)


def start(last_age: int) -> None:
    """Replace all workers up to this age."""
    struct.pack_into("q", _last_old_age, 0, last_age)


def is_started_for(age: int) -> bool:
    """Return whether a worker is to be replaced."""
    return age <= int(struct.unpack_from("q", _last_old_age)[0])


def report_ready(age: int) -> None:
    """Record that a worker is about to answer requests."""
    _ready[age % MAX_STARTS] = 1


def is_replaced(age: int, n_workers: int) -> bool:
    """Return whether enough younger workers are ready. The oldest worker goes when the first successor is, and so on."""
    return _ready[age % MAX_STARTS + 1 :].count(1) >= n_workers
