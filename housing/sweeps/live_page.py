"""Page of a running sweep, served to browsers of this machine by the process of the sweep."""

import threading
import time
from collections.abc import Callable, Iterable
from http.server import ThreadingHTTPServer
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from housing.core.errors import ConfigError
from housing.plots.html import render_page
from housing.sweeps.job_table import state
from housing.sweeps.progress import SweepProgress, minutes_and_seconds

ADDRESS = "127.0.0.1"
MAX_ROWS = 50  # running jobs, and reasons of failures
SCRIPT = """"use strict";
setInterval(async () => {
  try {
    const response = await fetch("/"), page = new DOMParser().parseFromString(await response.text(), "text/html");
    if (!response.ok) throw new Error(response.status);
    document.querySelector("main").replaceWith(page.querySelector("main"));
    document.title = page.title;
    document.getElementById("lost").hidden = true;
  } catch { document.getElementById("lost").hidden = false; }
}, 2000);
"""
HEADERS = [
    ("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
]


class LivePage:
    """A web server in a thread, with one page about the progress of a sweep. Nothing can be changed through it."""

    def __init__(self, progress: SweepProgress, lock: threading.Lock, title: str, leaderboard: str, port: int) -> None:
        """Open the port. Raises ConfigError if another program has it."""
        self._progress, self._lock, self._title, self._leaderboard = progress, lock, title, leaderboard
        try:
            self._server = make_server(ADDRESS, port, self._respond, _Server, _SilentHandler)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"Could not open sweep.port={port}: {error}. Set sweep.port to another port, or to 0.") from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="live-page", daemon=True)

    @property
    def port(self) -> int:
        """The port of the page."""
        return self._server.server_port

    def start(self) -> None:
        """Start to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _respond(self, request: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        # Through a name of its own that leads here, another site's script could read the page in the same browser.
        if request.get("HTTP_HOST", "").partition(":")[0] not in (ADDRESS, "localhost"):
            status, kind, text = "403 Forbidden", "text/plain", f"Open http://{ADDRESS}:{self.port}/"
        elif request["PATH_INFO"] == "/":
            status, kind, text = "200 OK", "text/html", self._render()
        elif request["PATH_INFO"] == "/live.js":
            status, kind, text = "200 OK", "text/javascript", SCRIPT
        else:
            status, kind, text = "404 Not Found", "text/plain", "Not found."
        start_response(status, [("Content-Type", f"{kind}; charset=utf-8"), *HEADERS])
        return [text.encode()]

    def _render(self) -> str:
        progress, now = self._progress, time.time()
        with self._lock:
            running = sorted(progress.running.values(), key=lambda outcome: outcome.started_at)
            failures = sorted(progress.failures.values(), key=lambda failure: -failure.n_jobs)
            return render_page(
                "live.html",
                title=self._title,
                leaderboard=self._leaderboard,
                progress=progress,
                now=now,
                running_for=minutes_and_seconds(now - progress.started_at),
                running=running[:MAX_ROWS],
                failures=failures[:MAX_ROWS],
                state=state,
            )


class _Server(ThreadingHTTPServer, WSGIServer):
    """Answers each connection in a thread: an idle one, as browsers open ahead, delays neither the page nor the sweep's end."""


class _SilentHandler(WSGIRequestHandler):
    """Prints no line for each request: the terminal shows the sweep."""

    timeout = 30  # seconds, after which an idle connection is closed

    def log_message(self, *_: Any) -> None:
        """Print nothing."""
