"""The shutdown flag, which gunicorn's master shares with all workers."""

import mmap

_flag = mmap.mmap(-1, 1)  # memory that forked processes share


def start() -> None:
    """Set the flag: /readyz answers 503 from now on."""
    _flag[0] = 1


def is_shutting_down() -> bool:
    """Return whether the flag is set."""
    return bool(_flag[0])
