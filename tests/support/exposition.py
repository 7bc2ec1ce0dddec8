"""A target of Prometheus whose numbers a test chooses: the stand-in for servers and for node exporter."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Exposition:
    """What a target shows: gauges, counters with their growth per second, and text as a program wrote it."""

    gauges: Mapping[str, float] = field(default_factory=dict)
    counters: Mapping[str, float] = field(default_factory=dict)
    text: str = ""
    started_at: float = field(default_factory=time.monotonic)

    def render(self) -> str:
        """Return the present values in Prometheus' text format."""
        elapsed = time.monotonic() - self.started_at
        values = {**self.gauges, **{series: rate * elapsed for series, rate in self.counters.items()}}
        return "".join([self.text, *(f"{series} {value!r}\n" for series, value in values.items())])


@contextmanager
def exposing(exposition: Exposition) -> Iterator[str]:
    """Serve an exposition during the block. Yield its host and port."""

    class Handler(BaseHTTPRequestHandler):
        """Answers each scrape."""

        def do_GET(self) -> None:  # pylint: disable=invalid-name  # the name that http.server requires
            """Answer with the present values."""
            body = exposition.render().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Do nothing: no access log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
