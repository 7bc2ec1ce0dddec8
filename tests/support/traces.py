"""A real receiver of OpenTelemetry traces over HTTP."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass
class Receiver:
    """The address of a receiver, and the spans and services that it has received."""

    url: str = ""
    spans: list[Any] = field(default_factory=list)
    services: set[str] = field(default_factory=set)

    def receive(self, body: bytes) -> None:
        """Keep the spans of an export."""
        message = ExportTraceServiceRequest.FromString(body)
        for resource in message.resource_spans:
            self.services |= {value["service.name"] for value in [attributes(resource.resource)]}
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]

    def of_trace(self, trace_id: str) -> list[Any]:
        """Return the spans of a trace that have arrived."""
        return [span for span in self.spans if span.trace_id.hex() == trace_id]


def attributes(described: Any) -> dict[str, Any]:
    """Return the attributes of a span or a resource."""
    return {item.key: getattr(item.value, str(item.value.WhichOneof("value"))) for item in described.attributes}


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver on a free port."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        """Accepts each export."""

        def do_POST(self) -> None:  # pylint: disable=invalid-name  # http.server calls it by this name
            """Keep the spans."""
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.receive(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
