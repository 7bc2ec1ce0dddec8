"""Entry: serve the model at an alias: a puller that follows the alias, gunicorn workers that predict, a joiner of feedback.

python -m housing.serve serve.port=9000
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping

from omegaconf import DictConfig

from housing.config import PROJECT, command

GUNICORN = ["-m", "gunicorn", "--config", str(PROJECT / "server" / "gunicorn.conf.py")]
BESIDE = {"puller": ["-m", "server.puller"], "joiner": ["-m", "server.joiner"]}
PAUSE = 1.0  # seconds between two looks at the processes


def environment(serve: DictConfig) -> dict[str, str]:
    """Give the environment in which the server's processes find their settings."""
    settings = {f"HOUSING_{str(name).upper()}": str(value) for name, value in serve.items()}
    return {**os.environ, **settings, "PROMETHEUS_MULTIPROC_DIR": f"{serve.folder}.metrics-{serve.port}"}


def supervise(environ: Mapping[str, str]) -> int:
    """Keep gunicorn, puller and joiner running until gunicorn ends or this process is told to; give gunicorn's exit code."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        processes["gunicorn"] = _start(GUNICORN, environ)
        processes |= {name: _start(arguments, environ) for name, arguments in BESIDE.items()}
        while processes["gunicorn"].poll() is None and not stopping.wait(PAUSE):
            for name, arguments in BESIDE.items():
                if processes[name].poll() is not None:
                    print(f"the {name} has ended; starting another", file=sys.stderr, flush=True)
                    processes[name] = _start(arguments, environ)
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait()
    return 0 if stopping.is_set() else processes["gunicorn"].returncode


def _start(arguments: list[str], environ: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, *arguments], env=environ, cwd=PROJECT)


@command("serve")
def main(cfg: DictConfig) -> None:
    """Serve until interrupted, or until gunicorn ends."""
    url = f"http://{cfg.serve.host}:{cfg.serve.port}"
    print(f"serving {cfg.serve.model} at alias {cfg.serve.alias}; Ctrl-C ends it\n")
    for route, meaning in (
        ("predict", "POST a row"),
        ("model", "what is served"),
        ("readyz", "is there a model?"),
        ("metrics", "for Prometheus"),
    ):
        print(f"  {url}/{route:8} {meaning}")
    sys.stdout.flush()
    sys.exit(supervise(environment(cfg.serve)))


if __name__ == "__main__":
    main()
