"""Gunicorn's settings; it reads this file itself."""

# pylint: disable=invalid-name  # gunicorn names its settings

import ipaddress
import os
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from prometheus_client import multiprocess

from server.access import Access
from server.settings import Settings

OPEN = """
WARNING: this server can be reached from other machines, and asks nobody for a key.
Make keys with python -m server.access, and name their file in serve.keys_file.
"""

_settings = Settings.from_environment()

wsgi_app = "server.app:create_app()"
bind = [f"{_settings.host}:{port}" for port in (_settings.port, _settings.metrics_port) if port]
workers = _settings.workers
worker_class = "gthread"
threads = _settings.threads
keepalive = 30
graceful_timeout = 20
control_socket_disable = True  # two masters of one user would take it from each other
loglevel = "warning"


def when_ready(server: Any) -> None:
    """Begin with no metrics of workers that are long gone, once the port is ours and before the first worker.

    The joiner may write its own at the same time, and does so again where they are gone.
    """
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*.db"):
        left.unlink()
    patience = struct.pack("ll", *divmod(int(1e6 * _settings.patience), 1_000_000))  # seconds, microseconds
    for listener in server.LISTENERS:  # what is accepted from it inherits this
        for wait in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            listener.sock.setsockopt(socket.SOL_SOCKET, wait, patience)
    if _is_public(_settings.host) and Access.configured(_settings.keys_file, 0).is_open:
        print(OPEN, file=sys.stderr, flush=True)


def _is_public(host: str) -> bool:
    found = {str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(host, None)}
    return not all(ipaddress.ip_address(address).is_loopback for address in found)


def child_exit(_server: Any, worker: Any) -> None:
    """Drop the gauges of a worker that is gone."""
    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
