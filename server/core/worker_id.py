"""Worker ids: a small number per worker process, which a replacement takes over from its predecessor."""

import fcntl
import os
from functools import cache
from pathlib import Path

MAX_WORKERS = 256  # a request id has two hexadecimal digits for it


@cache  # a process keeps its id
def acquire_worker_id(folder: Path) -> int:
    """Return the smallest id that no living process holds. This process holds it until it exits.

    Call it after the fork.

    Raises
    ------
    RuntimeError
        If all ids are taken.
    OSError
        If the folder is not writable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(MAX_WORKERS):
        handle = os.open(folder / f"worker-{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
        else:
            return number  # the handle stays open, so that the kernel releases the lock when the process exits
    raise RuntimeError(f"All {MAX_WORKERS} worker ids in {folder} are taken. Do several servers share this log folder?")
