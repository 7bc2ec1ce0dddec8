"""Many models in one worker: memory, latency, and failed requests while models are swapped."""

import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from housing.core.config import CONF
from housing.core.environment import PROJECT
from housing.serving import publishing
from housing.serving.supervisor import GUNICORN, server_environment
from scripts.benchmarks.processes import PYTHON, ROUNDS, children_of, newest_bundle
from scripts.benchmarks.serving import LOAD_SECONDS, N_CONNECTIONS, PLAIN_TREES, START_SECONDS, free_port, promote_model

N_MODELS = 100
SWAP_SECONDS = 1.0  # between two swaps
MODEL = "housing-california"
NAMES = [f"{MODEL}@alias{number}" for number in range(N_MODELS)]
SCRIPT = """
wrk.method = 'POST'
wrk.headers['Content-Type'] = 'application/json'
wrk.body = [[BODY]]
local paths, last = {PATHS}, 0
request = function()
  last = last % #paths + 1
  return wrk.format(nil, paths[last])
end
"""


@dataclass
class Releases:
    """The release folders, which this program fills as the puller does."""

    folder: Path
    bundle: Path
    count: int = 0
    swaps: int = 0

    def publish(self, name: str) -> None:
        """Publish the next version of a model."""
        self.count += 1
        info = {"model": MODEL, "version": str(self.count), "alias": name.partition("@")[2], "mlflow": "3", "name": name}
        publishing.publish(self.folder / name, f"{self.count}-run", self.bundle, info)

    def swap_until(self, stop: threading.Event) -> None:
        """Publish a new version of one model after the other."""
        while not stop.wait(SWAP_SECONDS):
            self.publish(NAMES[self.swaps % N_MODELS])
            self.swaps += 1


def print_many_models() -> None:
    """Print memory, requests per second, p99 and failures of one worker with 1 and 100 models, and with swaps."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        matrix, columns = promote_model(home, PLAIN_TREES)
        body = json.dumps(dict(zip(columns, matrix[0].tolist(), strict=True)))
        releases = Releases(home / "releases", newest_bundle(home))
        for name in NAMES:
            releases.publish(name)
        with _serving(home, NAMES[:1]) as one, _serving(home, NAMES) as many:
            loads = {"1 model": (one, NAMES[:1]), "100 models": (many, NAMES), "100 models, a swap each second": (many, NAMES)}
            measured: dict[str, list[tuple[float, float, int]]] = {label: [] for label in loads}
            for number in range(ROUNDS):
                for label, (url, names) in loads.items():
                    stop = threading.Event()
                    swapper = threading.Thread(target=releases.swap_until, args=[stop])
                    if "swap" in label:
                        swapper.start()
                    measured[label].append(_load(url, names, body, home))
                    stop.set()
                    if "swap" in label:
                        swapper.join()
                print(f"round {number + 1} of {ROUNDS}", file=sys.stderr, flush=True)
            _print_table(measured, {label: _memory(url) for label, (url, _) in loads.items()})
            print(f"\n{releases.swaps} swaps")


def _print_table(measured: dict[str, list[tuple[float, float, int]]], memory: dict[str, float]) -> None:
    print("| one worker, 500 trees, one row, 8 connections | memory, MB | requests/s | p99, ms, each round | failed |")
    print("|---|---:|---:|---:|---:|")
    for label, rounds in measured.items():
        rate, p99, failed = zip(*rounds, strict=True)
        each = " ".join(f"{value:.1f}" for value in p99)
        print(f"| {label} | {memory[label]:.0f} | {statistics.median(rate):.0f} | {each} | {sum(failed)} |", flush=True)


def _load(url: str, names: list[str], body: str, directory: Path) -> tuple[float, float, int]:
    """Send rows to the models in turn. Return requests per second, the p99 in milliseconds, and the number of failures."""
    script = directory / "models.lua"
    paths = ", ".join(f"'/models/{name}/predict'" for name in names)
    script.write_text(SCRIPT.replace("BODY", body).replace("PATHS", paths), "utf-8")
    arguments = ["wrk", "-t1", f"-c{N_CONNECTIONS}", f"-d{2 * LOAD_SECONDS}s", "--latency", "-s", str(script), url]
    output = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    value, unit = re.findall(r"99% +([\d.]+)(us|ms|s)", output)[0]
    p99 = float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]
    failures = [*re.findall(r"Non-2xx or 3xx responses: (\d+)", output)]
    for errors in re.findall(r"Socket errors: (.*)", output):
        failures += re.findall(r"\d+", errors)
    return float(re.findall(r"Requests/sec: +([\d.]+)", output)[0]), p99, sum(map(int, failures))


def _memory(url: str) -> float:
    """Return the resident memory of the worker in MB."""
    port = int(url.rpartition(":")[2])
    (worker,) = children_of(_masters[port])
    status = Path(f"/proc/{worker}/status").read_text("utf-8")
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) * 1024 / 1e6


_masters: dict[int, int] = {}  # pids of gunicorn's masters by port


@contextmanager
def _serving(home: Path, names: list[str]) -> Iterator[str]:
    """Run one worker on what is published, until the end of a block. Yield its address when all models are in memory."""
    port = free_port()
    overrides = [f"serve.port={port}", "serve.workers=1", f"serve.models=[{','.join(names)}]"]
    folders = [f"serve.release_dir={home}/releases", f"serve.log_dir={home}/log-{port}"]
    with initialize_config_dir(CONF, version_base="1.3"):
        environ = server_environment(compose("serve", [*overrides, *folders]).serve)
    environ |= {"PROMETHEUS_MULTIPROC_DIR": str(home / f"metrics-{port}"), "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen([PYTHON, *GUNICORN], cwd=PROJECT, env=environ) as process:
        _masters[port] = process.pid
        try:
            _wait_until_loaded(f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _wait_until_loaded(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not all(model["in_memory"] for model in _models(url)):
        if time.monotonic() > deadline:
            sys.exit(f"error: the models were not loaded within {START_SECONDS} s")
        time.sleep(0.2)


def _models(url: str) -> list[dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"{url}/models", timeout=30) as response:
            models: list[dict[str, Any]] = json.load(response)["models"]
            return models
    except OSError:
        return [{"in_memory": False}]
