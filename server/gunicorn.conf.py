"""Gunicorn's configuration file."""

# pylint: disable=invalid-name  # gunicorn chose the names of its settings

import ipaddress
import os
import resource
import shlex
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from gunicorn import version_info

from housing.core.files import exposed_secret
from housing.core.printable import configure_logging
from housing.core.traces import exporter_error
from housing.server_files import metric_files
from server.api import auth
from server.api.auth import Access
from server.core import handover, shutdown, worker_id
from server.core.settings import Settings
from server.transport.worker_class import choose

OPEN_SERVER_WARNING = """
WARNING: this server can be reached from other machines and requires no API key.
Create keys with python -m server.access and set serve.keys_file to their file.
"""

MAX_CONNECTIONS = 5000  # per worker
OTHER_FILES = 200  # that a worker has open
FEW_FILES_WARNING = """
WARNING: this process may open only {hard} files, so each worker holds at most {connections} connections.
Raise the hard limit (ulimit -Hn, LimitNOFILE= of systemd, --ulimit nofile= of Docker) to {needed}.
"""

SWITCH_SECONDS = 0.0002  # for which the event loop waits for Python's lock while a thread computes; Python's default is 0.005

HANDOVER_SECONDS = 2.0  # a worker that gets SIGTERM alone keeps answering this long, since clients use its open connections
HANDOVER_POLL_SECONDS = 0.1  # a worker that is replaced looks this often whether its successor is ready

configure_logging("%(message)s")
_settings = Settings.from_environment()


def _max_connections() -> int:
    """Return how many connections a worker can hold, after raising the limit of open files if that is needed and possible."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = MAX_CONNECTIONS + OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        connections = max(hard - OTHER_FILES, 10)
        print(FEW_FILES_WARNING.format(hard=hard, connections=connections, needed=needed), file=sys.stderr, flush=True)
        needed = hard
    else:
        connections = MAX_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return connections


wsgi_app = "server.app:create_app()"
bind = [f"{_settings.url_host}:{port}" for port in (_settings.port, _settings.metrics_port) if port]
workers = _settings.workers
worker_class = choose(version_info)
threads = _settings.threads
worker_connections = _max_connections()  # beyond it, the project's worker closes the least important connection
keepalive = _settings.keep_alive_seconds
forwarder_headers = ""  # no header sets SCRIPT_NAME or PATH_INFO
graceful_timeout = 10  # seconds for which an idle keep-alive connection can delay the exit of a worker
control_socket_disable = True  # two masters of one user would share its path
loglevel = "warning"


def on_starting(_server: Any) -> None:
    """Load the API keys for all workers, and check that traces can be exported. Exit if that fails."""
    if error := _load_keys_error() or exporter_error(os.environ):
        sys.exit(f"error: {error}")
    if _settings.keys_file and (exposed := exposed_secret(Path(_settings.keys_file))):
        print(f"WARNING: {exposed}. Run: chmod 600 {shlex.quote(_settings.keys_file)}", file=sys.stderr, flush=True)


def _load_keys_error() -> str:
    """Load the API keys. Return "" on success, or else why the previous keys stay in use."""
    try:
        auth.load_keys(_settings.keys_file)
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def when_ready(server: Any) -> None:
    """Prepare what workers inherit: signal handlers, socket timeouts and the metrics directory."""
    Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).mkdir(parents=True, exist_ok=True)
    _install_drain_handler(server)
    _install_reload_handler(server)
    timeout = struct.pack("ll", *divmod(int(1e6 * _settings.request_timeout_seconds), 1_000_000))  # seconds, microseconds
    for listener in server.LISTENERS:  # accepted connections inherit the timeouts of their listener
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            listener.sock.setsockopt(socket.SOL_SOCKET, option, timeout)
    if _is_public(_settings.host) and Access.from_settings(_settings.keys_file, 0).allows_anonymous:
        print(OPEN_SERVER_WARNING, file=sys.stderr, flush=True)


def _install_drain_handler(server: Any) -> None:
    """Make SIGTERM fail /readyz first, so that load balancers stop sending requests before the sockets close."""

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
    """Make SIGHUP reload the API keys. If they cannot be read, nothing changes."""

    def reload(*_: Any) -> None:
        if error := _load_keys_error():
            print(f"error: {error} The previous keys stay in use.", file=sys.stderr, flush=True)
        else:
            handover.start(server.worker_age)
            server.signal(signal.SIGHUP, None)

    signal.signal(signal.SIGHUP, reload)


def post_fork(_server: Any, _worker: Any) -> None:
    """Name a worker's metric files after its id, which its successor takes over, before the first metric is created.

    Its event loop shares Python's lock with the threads that log predictions, load models and answer large requests.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    metric_files.use_process_name(str(worker_id.acquire_worker_id(_settings.log_dir)))


def pre_request(worker: Any, _request: Any) -> None:
    """During a shutdown, close each connection after its next response."""
    if shutdown.is_shutting_down():
        worker.max_keepalived = 0  # a connection that was promised keep-alive gets one more request


def post_worker_init(worker: Any) -> None:
    """Keep a replaced worker (after SIGHUP to the master) answering until its successor is ready.

    It closes each connection after its next response. Gunicorn alone ends it at once: connections that were promised keep-alive
    fail, and nobody answers while the successors start.
    """
    handover.report_ready(worker.age)

    def exit_worker(*_: Any) -> None:
        worker.handle_exit(signal.SIGTERM, None)

    def exit_if_replaced(*_: Any) -> None:
        if shutdown.is_shutting_down() or handover.is_replaced(worker.age, _settings.workers):
            exit_worker()

    def start_handover(*_: Any) -> None:
        worker.max_keepalived = 0
        if shutdown.is_shutting_down():
            exit_worker()
        elif handover.is_started_for(worker.age):
            signal.signal(signal.SIGALRM, exit_if_replaced)
            signal.setitimer(signal.ITIMER_REAL, HANDOVER_POLL_SECONDS, HANDOVER_POLL_SECONDS)
        else:
            signal.setitimer(signal.ITIMER_REAL, HANDOVER_SECONDS)

    signal.signal(signal.SIGALRM, exit_worker)
    signal.signal(signal.SIGTERM, start_handover)


def _is_public(host: str) -> bool:
    addresses = {str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(host, None)}
    return not all(ipaddress.ip_address(address).is_loopback for address in addresses)
