"""A small number for each worker process, which a replacement takes over from its predecessor."""

import fcntl
import os
from functools import cache
from pathlib import Path

MAX_WORKERS = 256  # an id has two hexadecimal digits for it


@cache  # a process keeps its number
def acquire_worker_id(folder: Path) -> int:
    """Take the smallest number that no living process holds; it is ours until this process ends, however it ends.

    Call it after the fork. Raises RuntimeError where all numbers are taken, OSError where the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(MAX_WORKERS):
        handle = os.open(folder / f"worker-{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
        else:
            return number  # the handle stays open: the kernel lets go of the lock when the process ends
    raise RuntimeError(f"{folder}: all {MAX_WORKERS} slots are taken; do so many workers share it?")
