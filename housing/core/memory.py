"""Memory of this process."""

import ctypes


def trim_memory() -> None:
    """Return freed memory to the system. glibc keeps freed arrays of up to 32 MB for later ones, between which others lie."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
    if trim is not None:
        trim(0)
