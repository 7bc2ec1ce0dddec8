"""Worker ids: a small number per worker process, which a replacement takes over from its predecessor."""

from functools import cache
from pathlib import Path

from housing.core.locks import try_lock

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
        if try_lock(folder / f"worker-{number}.lock") is not None:
            return number  # the file stays open, so that the kernel releases the lock when the process exits
    raise RuntimeError(f"All {MAX_WORKERS} worker ids in {folder} are taken. Do several servers share this log folder?")
