"""Compiled loops of the spatial features: `spatial_kernels.c`, or None if the installation found no C compiler.

numpy and scipy compute the same bits without them, in several times the time.
"""

import functools
import logging
from typing import Any

from housing.core.environment import SETUP_COMMAND

try:
    from housing.features import spatial_kernels  # type: ignore[attr-defined]
except ImportError:
    spatial_kernels = None

INTERFACE = 2  # counts up when the arguments of a function change: a file that an older version compiled is not used
kernels: Any = spatial_kernels if getattr(spatial_kernels, "INTERFACE", 1) == INTERFACE else None

log = logging.getLogger(__name__)


@functools.lru_cache
def warn_not_compiled() -> None:
    """Log once that the extension is missing."""
    log.warning(
        "The extension housing.features.spatial_kernels is not compiled, or by an older version. numpy and scipy compute the"
        " spatial features, which takes more time. Install a C compiler, then: %s",
        SETUP_COMMAND,
    )
