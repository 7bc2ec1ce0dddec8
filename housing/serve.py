"""Entry: serve the model at an alias: a puller that follows the alias, and gunicorn workers that predict.

python -m housing.serve serve.port=9000
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from types import FrameType

from omegaconf import DictConfig

from housing.config import PROJECT, command

GRACE = 25  # seconds for gunicorn to answer what it has begun


def environment(serve: DictConfig) -> dict[str, str]:
    """Give the environment in which the server's processes find their settings."""
    settings = {f"HOUSING_{str(name).upper()}": str(value) for name, value in serve.items()}
    return {**os.environ, **settings, "PROMETHEUS_MULTIPROC_DIR": f"{serve.folder}.metrics-{serve.port}"}


def start(environ: Mapping[str, str]) -> list["subprocess.Popen[bytes]"]:
    """Start gunicorn and the puller."""
    commands = (["-m", "gunicorn", "--config", str(PROJECT / "server" / "gunicorn.conf.py")], ["-m", "server.puller"])
    return [subprocess.Popen([sys.executable, *arguments], env=environ, cwd=PROJECT) for arguments in commands]


@command("serve")
def main(cfg: DictConfig) -> None:
    """Serve until interrupted, or until gunicorn ends; the puller ends with it."""
    gunicorn, puller = start(environment(cfg.serve))

    def stop(_signal: int, _frame: FrameType | None) -> None:
        gunicorn.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
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
    try:
        code = gunicorn.wait()
    finally:
        puller.terminate()
        puller.wait(GRACE)
    sys.exit(code)


if __name__ == "__main__":
    main()
