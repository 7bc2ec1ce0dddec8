"""Traces of a process by OpenTelemetry, an extra: whether its own environment variables turn them on, and their export.

The SDK reads the same variables. The libraries are imported only if traces are on.
"""

import atexit
import threading
from collections.abc import Mapping
from typing import Any

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
EXPORTER, EXPORTERS = "OTEL_TRACES_EXPORTER", ("otlp", "none")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
PROTOCOL = "http/protobuf"
FLUSH_SECONDS = 5.0  # in which the last spans can be sent when the process ends


def are_traced(environ: Mapping[str, str]) -> bool:
    """Return whether requests are traced: an exporter or an endpoint is set, and nothing turns traces off."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get(EXPORTER) == "none":
        return False
    return any(environ.get(name) for name in (*ENDPOINTS, EXPORTER))


def exporter_error(environ: Mapping[str, str]) -> str:
    """Return why traces, which are turned on, cannot be exported; "" if they can, or if they are off."""
    if not are_traced(environ):
        return ""
    if (exporter := environ.get(EXPORTER) or "otlp") not in EXPORTERS:
        return f"{EXPORTER} must be {' or '.join(EXPORTERS)} (got {exporter})."
    for name in PROTOCOLS:
        if (protocol := environ.get(name) or PROTOCOL) != PROTOCOL:
            return f"{name} must be {PROTOCOL} (got {protocol})."
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: F401  # pylint: disable=import-outside-toplevel,unused-import
    except ImportError:
        name = next(name for name in (*ENDPOINTS, EXPORTER) if environ.get(name))
        install = "Install it with: pip install 'housing[traces]', or unset the variable"
        return f"{name} is set, but the exporter of traces is not installed. {install}."
    return ""


def start_tracer() -> Any:
    """Return a tracer, whose thread exports its spans until this process ends. No thread outlives a fork: call it afterwards."""
    # pylint: disable=import-outside-toplevel  # an extra
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(shutdown_on_exit=False)  # which would wait 30 s for a receiver that does not answer
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    is_ending = threading.Event()

    def flush() -> None:
        is_ending.wait()
        provider.shutdown()

    flusher = threading.Thread(target=flush, name="flush of traces", daemon=True)  # a process that ends starts no thread
    flusher.start()

    def end() -> None:
        is_ending.set()
        flusher.join(FLUSH_SECONDS)

    atexit.register(end)
    return provider.get_tracer("housing")
