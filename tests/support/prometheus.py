"""The real Prometheus and Alertmanager with the project's own files and intervals of one second."""

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

# The only changes to the project's files: scrape and evaluation intervals and the duration of a condition.
INTERVALS = re.compile(r"\b(scrape_interval|evaluation_interval|interval|for|group_wait|group_interval): \d+[smh]")


NODE_EXPORTER = "prometheus-node-exporter"
PROGRAMS = ("prometheus", "promtool", "prometheus-alertmanager", "amtool")


HINT = "Prometheus and Alertmanager are not installed: apt-get install prometheus prometheus-alertmanager"


def is_installed() -> bool:
    """Return whether this machine has the programs."""
    return all(map(shutil.which, PROGRAMS))


@dataclass
class Receiver:
    """The messages that Alertmanager has posted to a webhook."""

    url: str
    posts: list[dict[str, Any]] = field(default_factory=list)

    def firing(self, alert: str) -> list[dict[str, str]]:
        """Return the labels of each notification that an alert is firing."""
        alerts = [alert_ for post in self.posts for alert_ in post["alerts"] if alert_["status"] == "firing"]
        return [alert_["labels"] for alert_ in alerts if alert_["labels"]["alertname"] == alert]


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Run a webhook that stores the messages of Alertmanager."""

    class Handler(BaseHTTPRequestHandler):
        """Stores each message."""

        def do_POST(self) -> None:  # pylint: disable=invalid-name  # the name that http.server requires
            """Store the message."""
            receiver_.posts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Do nothing: no access log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver_ = Receiver(f"http://127.0.0.1:{server.server_port}/alerts")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield receiver_
        finally:
            server.shutdown()
            thread.join()


def fast_config(directory: Path) -> Path:
    """Copy the project's folder `prometheus` with every interval set to one second."""
    shutil.copytree(PROJECT / "prometheus", directory / "prometheus")
    for path in (directory / "prometheus").glob("*.yml"):
        path.write_text(INTERVALS.sub(r"\1: 1s", path.read_text(encoding="utf-8")), encoding="utf-8")
    return directory / "prometheus"


@contextmanager
def alertmanager(folder: Path, webhook_url: str) -> Iterator[str]:
    """Run Alertmanager with the folder's config and this webhook. Yield its host and port."""
    file, port = folder / "alertmanager.yml", free_port()
    file.write_text(re.sub(r"http://127.0.0.1:\d+/alerts", webhook_url, file.read_text(encoding="utf-8")), encoding="utf-8")
    (folder / "alert_hook.secret").write_text("made for the test\n", encoding="utf-8")
    address = f"127.0.0.1:{port}"
    arguments = [f"--config.file={file}", f"--storage.path={folder}/alertmanager", f"--web.listen-address={address}"]
    with _running(["prometheus-alertmanager", *arguments, "--cluster.listen-address="], f"http://{address}/-/ready", folder):
        yield address


@contextmanager
def prometheus(
    folder: Path, server: str, alertmanager_: str, *more_servers: str, node: str | None = None
) -> Iterator[Prometheus]:
    """Run Prometheus with the folder's config. Servers, Alertmanager and node exporter are hosts with ports."""
    targets = {"housing": [server, *more_servers], "alertmanager": [alertmanager_], "node": [node] if node else []}
    for name, addresses in targets.items():
        (folder / "targets" / f"{name}.yml").write_text(json.dumps([{"targets": addresses}]), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    arguments = [
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}",
    ]
    with _running(["prometheus", *arguments], f"http://{address}/-/ready", folder):
        yield Prometheus(f"http://{address}")


@contextmanager
def node_exporter(folder: Path, metrics: Path) -> Iterator[str]:
    """Run node exporter, which serves the files of a folder with metrics. Yield its host and port."""
    address = f"127.0.0.1:{free_port()}"
    arguments = ["--collector.disable-defaults", "--collector.textfile", f"--collector.textfile.directory={metrics}"]
    with _running([NODE_EXPORTER, *arguments, f"--web.listen-address={address}"], f"http://{address}/", folder):
        yield address


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
