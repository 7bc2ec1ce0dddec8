"""The cost of traces per request of one row, through the whole WSGI application: scripts/bench traces prints the table."""

import io
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from housing.serving.supervisor import server_environment
from scripts.benchmarks.serving import promote_model, request_bodies
from tests.support.metrics_cost import publish
from tests.support.tables import config
from tests.support.traces import receiving

REQUESTS = 3000  # of each timing
QUEUE = {"OTEL_BSP_MAX_QUEUE_SIZE": "100000"}  # no span is dropped
SAMPLED = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}
VARIANTS: dict[str, dict[str, str] | None] = {"off": None, "1 %": {**SAMPLED, "OTEL_TRACES_SAMPLER_ARG": "0.01"}, "all": {}}


def main(rounds: int) -> None:
    """Print the processor time of a request in each variant, in processes that take turns. A real receiver takes the spans."""
    with tempfile.TemporaryDirectory() as name, receiving() as receiver:
        home = Path(name)
        matrix, columns = promote_model(home)
        body = request_bodies(columns, matrix[:1].tolist())["columns"]
        overrides = (f"serve.release_dir={publish(home)}", f"serve.log_dir={home / 'log'}", "serve.model=housing-california")
        environ = server_environment(config("serve", *overrides).serve)
        durations: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
        for turn in range(rounds):
            for variant, variables in VARIANTS.items():
                traced = {} if variables is None else {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, **QUEUE, **variables}
                folder = home / f"metrics-{turn}-{variant}"
                folder.mkdir()
                process = subprocess.run(
                    [sys.executable, "-m", "tests.support.trace_cost"],
                    env={**environ, **traced, "PROMETHEUS_MULTIPROC_DIR": str(folder), "OMP_NUM_THREADS": "1"},
                    input=body,
                    stdout=subprocess.PIPE,
                    check=True,
                )
                durations[variant].append(float(process.stdout))
        print("| sampled | microseconds per request |\n|---|---:|")
        for variant, times in durations.items():
            print(f"| {variant} | {statistics.median(times):.0f} |")


def microseconds(body: bytes) -> float:
    """Return the processor time of a request, with the threads that write the log and export spans."""
    from server.app import create_app  # pylint: disable=import-outside-toplevel  # reads the environment

    app = create_app()

    def start_response(status: str, _: Any) -> None:
        assert status == "200 OK", status

    def send(count: int) -> None:
        environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/predict", "CONTENT_TYPE": "application/json", "HTTP_HOST": "a"}
        for _ in range(count):
            b"".join(app({**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}, start_response))

    send(REQUESTS // 10)
    started = time.process_time()
    send(REQUESTS)
    return 1e6 * (time.process_time() - started) / REQUESTS


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(int(sys.argv[1]))
    else:
        print(microseconds(sys.stdin.buffer.read()))
