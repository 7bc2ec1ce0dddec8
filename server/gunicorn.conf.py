"""Gunicorn's settings; it reads this file itself."""

# pylint: disable=invalid-name  # gunicorn names its settings

import os
import shutil
from pathlib import Path
from typing import Any

from prometheus_client import multiprocess

from server.settings import Settings

_settings = Settings.from_environment()

wsgi_app = "server.app:create_app()"
bind = f"{_settings.host}:{_settings.port}"
workers = _settings.workers
worker_class = "gthread"
threads = _settings.threads
keepalive = 30
graceful_timeout = 20
control_socket_disable = True  # two masters of one user would take it from each other
loglevel = "warning"


def when_ready(_server: Any) -> None:
    """Begin with no metrics of workers that are long gone, once the port is ours and before the first worker."""
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def child_exit(_server: Any, worker: Any) -> None:
    """Drop the gauges of a worker that is gone."""
    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
