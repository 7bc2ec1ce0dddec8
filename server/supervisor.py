"""TODO docstring."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from typing import Any

from housing.core.environment import PROJECT
from housing.core.errors import ConfigError

GUNICORN = ["-m", "gunicorn", "--config", str(PROJECT / "server" / "gunicorn.conf.py")]


SIDECARS = {"puller": ["-m", "server.models.puller"], "joiner": ["-m", "server.feedback.joiner"]}


POLL_SECONDS = 1.0  # seconds between two looks at the processes


PR_SET_PDEATHSIG = 1  # of Linux' prctl


def server_environment(serve: Mapping[str, Any]) -> dict[str, str]:
    """Give the environment in which the server's processes find their settings."""
    settings = {f"HOUSING_{name.upper()}": str(value) for name, value in serve.items()}
    return {**os.environ, **settings}


def supervise(environ: Mapping[str, str]) -> int:
    """Keep gunicorn, puller and joiner running until gunicorn ends or this process is told to; give gunicorn's exit code."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with tempfile.TemporaryDirectory(prefix="housing-metrics-") as metrics:
        environ = {**environ, "PROMETHEUS_MULTIPROC_DIR": metrics}  # of this server's processes alone, and gone with them
        processes: dict[str, subprocess.Popen[bytes]] = {}
        try:
            processes["gunicorn"] = _start_process(GUNICORN, environ)
            processes |= {name: _start_process(arguments, environ) for name, arguments in SIDECARS.items()}
            signal.signal(signal.SIGHUP, lambda *_: processes["gunicorn"].send_signal(signal.SIGHUP))
            while processes["gunicorn"].poll() is None and not stopping.wait(POLL_SECONDS):
                _restart_sidecars(processes, environ)
        finally:
            for process in processes.values():
                process.terminate()
            for process in processes.values():
                process.wait()
    return 0 if stopping.is_set() else processes["gunicorn"].returncode


def _restart_sidecars(processes: dict[str, "subprocess.Popen[bytes]"], environ: Mapping[str, str]) -> None:
    for name, arguments in SIDECARS.items():
        if processes[name].poll() is not None:
            print(f"the {name} has ended; starting another", file=sys.stderr, flush=True)
            processes[name] = _start_process(arguments, environ)


def _start_process(arguments: list[str], environ: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    # pylint: disable-next=subprocess-popen-preexec-fn  # this process has one thread
    return subprocess.Popen([sys.executable, *arguments], env=environ, cwd=PROJECT, preexec_fn=_terminate_with_parent)


def _terminate_with_parent() -> None:
    """Have this process told to stop when its parent is gone, even by `kill -9`; only Linux can do that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def require_free_port(host: str, port: int) -> None:
    """Raise ConfigError where another process listens on a port, or the host is not one of this machine's."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as place:
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what was open a moment ago is no hindrance
            place.bind(address)
    except OSError as error:
        raise ConfigError(
            f"{host} port {port} cannot be listened on: {error.strerror}; choose another with serve.port= (or serve.host=)"
        ) from error
