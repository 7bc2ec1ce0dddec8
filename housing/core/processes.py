"""Who does what: which process a run belongs to, whether that still lives, and that no two on a machine fit the same."""

import functools
import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

HOST, PROCESS, HEARTBEAT = "housing.host", "housing.process", "housing.heartbeat"  # tags of a run


HEARTBEAT_SECONDS = 60.0  # seconds from one heartbeat to the next


HEARTBEAT_TIMEOUT = timedelta(minutes=5)  # after which a run on a machine that cannot be asked is given up


def process_tags() -> dict[str, str]:
    """Give this process as tags of a run: its host, and its pid with what tells it from a later process of that pid."""
    return {HOST: socket.gethostname(), PROCESS: f"{os.getpid()} {_start_time(os.getpid())} {_pid_namespace()}", HEARTBEAT: now()}


def now() -> str:
    """Give the time as a heartbeat tells it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def is_current_process(tags: Mapping[str, str]) -> bool:
    """Whether a run belongs to this very process."""
    mine = process_tags()
    return all(tags.get(name) == mine[name] for name in (HOST, PROCESS))


def is_dead(tags: Mapping[str, str]) -> bool:
    """Whether the process of a run is gone for certain, or has not been heard of for five minutes where it cannot be seen.

    A process can be seen from the same host, since the same boot, and with the same table of pids (containers have others).
    """
    pid, _, rest = tags.get(PROCESS, "").partition(" ")
    start, _, pids = rest.partition(" ")
    if tags.get(HOST) == socket.gethostname() and pids == _pid_namespace() and pid.isdecimal():
        return start != _start_time(int(pid))
    try:
        return datetime.now(UTC) - datetime.fromisoformat(tags[HEARTBEAT]) > HEARTBEAT_TIMEOUT
    except (KeyError, ValueError):
        return False  # not one of ours


def _start_time(pid: int) -> str | None:
    """Give the start time of a process in clock ticks since boot, or None where there is no such process.

    A pid alone comes again. A system without /proc tells pids alone.
    """
    if not Path("/proc/self/stat").exists():
        return "unknown" if _exists(pid) else None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]  # a zombie has ended


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@functools.lru_cache
def _pid_namespace() -> str:
    """Give what names this machine's present table of pids: the boot, and the namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return "unknown"
