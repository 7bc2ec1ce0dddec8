"""Whether this server is about to stop: told by gunicorn's master, seen by all workers that it forks."""

import mmap

_flag = mmap.mmap(-1, 1)  # memory that forked processes share


def begin() -> None:
    """Have /readyz say that no more requests should be sent here."""
    _flag[0] = 1


def has_begun() -> bool:
    """Whether it says so."""
    return bool(_flag[0])
