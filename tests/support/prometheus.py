"""The real Prometheus and the real Alertmanager, run with the project's own files, faster than a real day."""

import json
import re
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from grafana.prometheus_api import Prometheus
from housing.core.environment import PROJECT
from tests.support.server import free_port
from tests.support.waiting import SECONDS, wait_for

# All that is changed in the project's files: how often is looked, and how long something must hold. Expressions stay.
HURRY = re.compile(r"\b(scrape_interval|evaluation_interval|interval|for|group_wait|group_interval): \d+[smh]")


PROGRAMS = ("prometheus", "promtool", "prometheus-alertmanager", "amtool")


HINT = "Prometheus and Alertmanager are not on this machine: apt-get install prometheus prometheus-alertmanager"


def there() -> bool:
    """Whether this machine has the programs."""
    return all(map(shutil.which, PROGRAMS))


@dataclass
class Receiver:
    """Takes what Alertmanager posts."""

    url: str
    posts: list[dict[str, Any]] = field(default_factory=list)

    def told(self, alert: str) -> list[dict[str, str]]:
        """The labels with which it was told that an alert is raised."""
        alerts = [one for post in self.posts for one in post["alerts"] if one["status"] == "firing"]
        return [one["labels"] for one in alerts if one["labels"]["alertname"] == alert]


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Listen for as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        """Keeps each post."""

        def do_POST(self) -> None:  # pylint: disable=invalid-name  # http.server calls it so
            """Keep it."""
            found.posts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Receiver(f"http://127.0.0.1:{server.server_port}/alerts")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


def hurried(place: Path) -> Path:
    """Copy the project's folder `prometheus`, with a second for every interval."""
    shutil.copytree(PROJECT / "prometheus", place / "prometheus")
    for path in (place / "prometheus").glob("*.yml"):
        path.write_text(HURRY.sub(r"\1: 1s", path.read_text(encoding="utf-8")), encoding="utf-8")
    return place / "prometheus"


@contextmanager
def alertmanager(folder: Path, told: str) -> Iterator[str]:
    """Run Alertmanager with the folder's file, the webhook's address in it replaced; give its host and port."""
    file, port = folder / "alertmanager.yml", free_port()
    file.write_text(re.sub(r"http://127.0.0.1:\d+/alerts", told, file.read_text(encoding="utf-8")), encoding="utf-8")
    (folder / "alert_hook.secret").write_text("made for the test\n", encoding="utf-8")
    address = f"127.0.0.1:{port}"
    arguments = [f"--config.file={file}", f"--storage.path={folder}/alertmanager", f"--web.listen-address={address}"]
    with _running(["prometheus-alertmanager", *arguments, "--cluster.listen-address="], f"http://{address}/-/ready", folder):
        yield address


@contextmanager
def prometheus(folder: Path, server: str, alertmanager_: str) -> Iterator[Prometheus]:
    """Run Prometheus with the folder's files; `server` and `alertmanager_` are hosts and ports."""
    for name, address in (("housing", server), ("alertmanager", alertmanager_)):
        (folder / "targets" / f"{name}.yml").write_text(f'- targets: ["{address}"]\n', encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    arguments = [
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}",
    ]
    with _running(["prometheus", *arguments], f"http://{address}/-/ready", folder):
        yield Prometheus(f"http://{address}")


@contextmanager
def _running(arguments: list[str], ready: str, folder: Path) -> Iterator[None]:
    with (folder / f"{arguments[0]}.log").open("wb") as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log)
    try:
        wait_for(lambda: _answers(ready), f"{arguments[0]} is ready")
        yield
    finally:
        process.terminate()
        process.wait(SECONDS)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False
