"""Whether this server is about to stop: told by gunicorn's master, seen by all workers that it forks."""

import mmap

_flag = mmap.mmap(-1, 1)  # memory that forked processes share


def start() -> None:
    """Have /readyz say that no more requests should be sent here."""
    _flag[0] = 1


def is_shutting_down() -> bool:
    """Whether it says so."""
    return bool(_flag[0])
