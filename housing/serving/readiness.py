"""Start of a local server: a free port, the wait until it is ready, and the end of its log."""

import socket
import subprocess
import time
from pathlib import Path

from housing.core.http import NO_PROXY_OPENER

POLL_SECONDS = 0.1
REQUEST_TIMEOUT_SECONDS = 10


def free_port() -> int:
    """Return a port of the loopback address that no program listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until_ready(url: str, process: "subprocess.Popen[bytes]", timeout: float) -> bool:
    """Return whether the server at a URL is ready before its process ends or `timeout` seconds have passed."""
    deadline = time.monotonic() + timeout
    while not _is_ready(url):
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def last_lines(log: Path, n_lines: int = 1) -> str:
    """Return the last lines of a log that are not blank."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return "\n".join(lines[-n_lines:]) or "(the log is empty)"


def _is_ready(url: str) -> bool:
    try:
        with NO_PROXY_OPENER.open(f"{url}/readyz", timeout=REQUEST_TIMEOUT_SECONDS):
            return True
    except OSError:
        return False
