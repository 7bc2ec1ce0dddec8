"""Process identity and liveness: the tags that tie a run to its process, and whether that process still runs."""

import functools
import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

HOST, PROCESS, HEARTBEAT = "housing.host", "housing.process", "housing.heartbeat"  # tags of a run
HEARTBEAT_SECONDS = 60.0  # interval between two heartbeats
HEARTBEAT_TIMEOUT = timedelta(minutes=5)  # a process on another machine is dead without a heartbeat for this long


def process_tags(pid: int | None = None) -> dict[str, str]:
    """Return the tags that identify a process of this machine, by default the present one.

    They are the host, a heartbeat, and the process ID with start time and PID namespace. The start time and the namespace
    distinguish it from another process that has the same process ID.
    """
    pid = os.getpid() if pid is None else pid
    return {HOST: socket.gethostname(), PROCESS: f"{pid} {_start_time(pid)} {_pid_namespace()}", HEARTBEAT: now()}


def now() -> str:
    """Return the current UTC time in ISO format with seconds, as stored in a heartbeat."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def is_current_process(tags: Mapping[str, str]) -> bool:
    """Return whether the tags of a run identify this process."""
    own_tags = process_tags()
    return all(tags.get(name) == own_tags[name] for name in (HOST, PROCESS))


def is_dead(tags: Mapping[str, str]) -> bool:
    """Return whether the process of a run has ended.

    A process on the same host, of the same boot and PID namespace, is looked up by its process ID. Any other process
    (another machine or container) counts as dead if its last heartbeat is older than `HEARTBEAT_TIMEOUT`.
    """
    pid, _, rest = tags.get(PROCESS, "").partition(" ")
    start_time, _, pid_namespace = rest.partition(" ")
    if tags.get(HOST) == socket.gethostname() and pid_namespace == _pid_namespace() and pid.isdecimal():
        return start_time != _start_time(int(pid))
    try:
        return datetime.now(UTC) - datetime.fromisoformat(tags[HEARTBEAT]) > HEARTBEAT_TIMEOUT
    except (KeyError, ValueError):
        return False  # a run without these tags was not started by this project


def _start_time(pid: int) -> str | None:
    """Return the start time of a process in clock ticks since boot, or None if there is no such process.

    The start time is needed because process IDs are reused. Without /proc, return "unknown" for a running process.
    """
    if not Path("/proc/self/stat").exists():
        return "unknown" if _exists(pid) else None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]  # a zombie (Z) or dead (X) process has ended


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
    """Return the boot ID of this machine and the PID namespace of this process, or "unknown" without /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return "unknown"
