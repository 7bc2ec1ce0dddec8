"""Gunicorn worker with one event loop for all sockets, so that slow and silent clients occupy no thread."""

import os
import sys
import time
from typing import Any

from gunicorn.workers.base import Worker as BaseWorker

from server.core.settings import Settings
from server.transport.event_loop import EventLoop

TURN_SECONDS = 1.0  # the longest time between two heartbeats, and between two looks at deadlines


class Worker(BaseWorker):  # type: ignore[misc]  # gunicorn has no types
    """Answers requests until gunicorn's master, or a signal, stops it."""

    alive: bool
    max_keepalived = 1  # gunicorn.conf.py sets 0, as for gunicorn's own worker: each connection closes after its next response

    @classmethod
    def check_config(cls, cfg: Any, _log: Any) -> None:
        """Refuse settings of gunicorn that this worker does not support."""
        if cfg.is_ssl or cfg.proxy_protocol != "off":
            sys.exit("error: TLS and the PROXY protocol need gunicorn's own worker: GUNICORN_CMD_ARGS=--worker-class=gthread")

    def count_request(self) -> None:
        """Count a request. After the last one that gunicorn's settings allow, the worker stops, and is replaced."""
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False

    def run(self) -> None:
        """Answer requests. Once stopped, accept no more connections, and finish what clients have begun."""
        loop = EventLoop(self, Settings.from_environment())
        while self.alive and self.ppid == os.getppid():
            self.notify()
            loop.turn(TURN_SECONDS)
        self.alive = False
        loop.stop_listening()
        deadline = time.monotonic() + self.cfg.graceful_timeout
        while loop.has_work and time.monotonic() < deadline:
            self.notify()
            loop.turn(TURN_SECONDS)
        loop.stop_threads()
