"""Gunicorn's settings; it reads this file itself."""

# pylint: disable=invalid-name  # gunicorn names its settings

import ipaddress
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from gunicorn import version_info

from server.api import auth
from server.api.auth import Access
from server.core import shutdown, worker_id
from server.core.settings import Settings
from server.metrics import mmap_files
from server.transport.worker_class import choose

OPEN_SERVER_WARNING = """
WARNING: this server can be reached from other machines, and asks nobody for a key.
Make keys with python -m server.access, and name their file in serve.keys_file.
"""

# Seconds that a worker which is replaced goes on: its successor needs about as long to start.
HANDOVER_SECONDS = 2.0

_settings = Settings.from_environment()

wsgi_app = "server.app:create_app()"
bind = [f"{_settings.host}:{port}" for port in (_settings.port, _settings.metrics_port) if port]
workers = _settings.workers
worker_class = choose(version_info)
threads = _settings.threads
keepalive = 30
graceful_timeout = 10  # an idle connection that a client keeps open holds a worker until then
control_socket_disable = True  # two masters of one user would take it from each other
loglevel = "warning"


def on_starting(_server: Any) -> None:
    """Hold the keys for all workers; end before anything begins where they cannot be read."""
    wrong = _load_keys_error()
    if wrong:
        sys.exit(f"error: {wrong}")


def _load_keys_error() -> str:
    """Hold the keys that are there now, or say why those held before stay."""
    try:
        auth.load_keys(_settings.keys_file)
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def when_ready(server: Any) -> None:
    """Prepare what the workers inherit, once the port is ours and before the first of them."""
    Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).mkdir(parents=True, exist_ok=True)
    _install_drain_handler(server)
    _install_reload_handler(server)
    patience = struct.pack("ll", *divmod(int(1e6 * _settings.request_timeout), 1_000_000))  # seconds, microseconds
    for listener in server.LISTENERS:  # what is accepted from it inherits this
        for wait in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            listener.sock.setsockopt(socket.SOL_SOCKET, wait, patience)
    if _is_public(_settings.host) and Access.from_settings(_settings.keys_file, 0).allows_anonymous:
        print(OPEN_SERVER_WARNING, file=sys.stderr, flush=True)


def _install_drain_handler(server: Any) -> None:
    """Have SIGTERM make /readyz say 503 first, so that no more requests are sent here when the listening sockets close."""

    def stop(*_: Any) -> None:
        server.signal(signal.SIGTERM, None)

    def drain(*_: Any) -> None:
        if shutdown.is_shutting_down() or not _settings.drain_seconds:
            stop()
        else:
            signal.setitimer(signal.ITIMER_REAL, _settings.drain_seconds)
        shutdown.start()

    signal.signal(signal.SIGALRM, stop)
    signal.signal(signal.SIGTERM, drain)


def _install_reload_handler(server: Any) -> None:
    """Have SIGHUP read the keys again, and change nothing where they cannot be read."""

    def replace(*_: Any) -> None:
        wrong = _load_keys_error()
        if wrong:
            print(f"error: {wrong}; the keys in use stay", file=sys.stderr, flush=True)
        else:
            server.signal(signal.SIGHUP, None)

    signal.signal(signal.SIGHUP, replace)


def post_fork(_server: Any, _worker: Any) -> None:
    """Have a worker's metrics go by its number, and so by that of its successor, before it makes the first of them."""
    mmap_files.use_process_name(str(worker_id.acquire_worker_id(_settings.log_dir)))


def pre_request(worker: Any, _request: Any) -> None:
    """End each connection with its next answer once the server is about to stop."""
    if shutdown.is_shutting_down():
        worker.max_keepalived = 0  # those that were promised to stay do, for one more request


def post_worker_init(worker: Any) -> None:
    """Have a worker that is replaced (SIGHUP to the master) answer on for a while, and end each connection with its next answer.

    Gunicorn alone would close connections whose last answer promised that they stay, and the next request on them fails.
    """

    def exit_worker(*_: Any) -> None:
        worker.handle_exit(signal.SIGTERM, None)

    def start_handover(*_: Any) -> None:
        worker.max_keepalived = 0
        if shutdown.is_shutting_down():
            exit_worker()
        else:
            signal.setitimer(signal.ITIMER_REAL, HANDOVER_SECONDS)

    signal.signal(signal.SIGALRM, exit_worker)
    signal.signal(signal.SIGTERM, start_handover)


def _is_public(host: str) -> bool:
    found = {str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(host, None)}
    return not all(ipaddress.ip_address(address).is_loopback for address in found)
