"""Resources that a piece of work uses in this process: time, processor time and peak memory."""

import os
import resource
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

RESET_PEAK = "5"  # written to clear_refs, this sets the peak of a process to its present memory; see proc(5)
CLEAR_REFS, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
BYTES_PER_UNIT = 1 if sys.platform == "darwin" else 1024  # of the peak that getrusage returns


def _processor_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


@dataclass(frozen=True)
class ResourceMeter:
    """Measures what this process uses from now on. A process can do one piece of work after the other."""

    started_at: float = field(default_factory=time.monotonic)
    processor_seconds: float = field(default_factory=_processor_seconds)

    def __post_init__(self) -> None:
        _reset_peak_memory()

    def read(self) -> dict[str, float]:
        """Return the usage so far.

        Returns `wall_seconds`, `cpu_seconds` (with children that have ended) and `peak_memory_megabytes` (resident memory of this
        process alone; where the system cannot reset its peak, the peak since the process started).
        """
        return {
            "wall_seconds": time.monotonic() - self.started_at,
            "cpu_seconds": _processor_seconds() - self.processor_seconds,
            "peak_memory_megabytes": _peak_memory_bytes() / 1e6,
        }


def _reset_peak_memory() -> None:
    """Forget the peak of earlier work, if the system can: Linux can, unless a container hides the file."""
    with suppress(OSError):
        CLEAR_REFS.write_text(RESET_PEAK, encoding="ascii")


def _peak_memory_bytes() -> float:
    try:
        lines = STATUS.read_text(encoding="utf-8").splitlines()
        [peak] = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    except (OSError, ValueError):  # there is no such file, or no such line: some sandboxes of containers have none
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * BYTES_PER_UNIT)
    return float(peak) * 1024
