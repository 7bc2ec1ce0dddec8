"""Attacks by slow and silent clients, and what usual clients notice of them: scripts/bench attacks."""

import json
import re
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import numpy as np

from housing.core.environment import PROJECT
from housing.tracking import store as tracking_store
from tests.support.background_threads import running_threads
from tests.support.raw_client import WARM, request
from tests.support.server import Server, promoted, serving
from tests.support.tables import FLAT
from tests.support.waiting import wait_for

DURATION = 15.0  # seconds of each attack
SETTLE_SECONDS = 5.0  # from the last connection of an attack until it counts
DRIP_SECONDS = 5.0  # between two bytes of a dribbling client
CLIENT_TIMEOUT = 10.0  # seconds after which a usual client gives up
PAUSE = 0.05  # seconds between two requests of a usual client
N_CLIENTS = 8  # half of them keep their connection


@dataclass(frozen=True)
class Attack:
    """Connections that send an opening, and then a drip every few seconds over some of them. They may read no response."""

    n_connections: int
    opening: bytes = b""
    drip: bytes = b""
    n_dripping: int = 200
    reads: bool = True


LARGE_FILES = 20 * b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"
ATTACKS = {
    "5,000 silent": Attack(5000),
    "200 dribbling headers": Attack(200, b"POST /explain HTTP/1.1\r\nHost: ", drip=b"a"),
    "200 dribbling bodies": Attack(200, request(b"", "/explain", length=100_000), drip=b"a"),
    "64 that read no response": Attack(64, LARGE_FILES, drip=LARGE_FILES, reads=False),
    "5,000 idle after a request": Attack(5000, WARM),
    "5,000 silent and 200 dribbling": Attack(5200, drip=b"a"),
}


class Attacker:
    """Holds the connections of an attack. It replaces each connection that the server closes."""

    def __init__(self, attack: Attack, address: tuple[str, int]) -> None:
        self._attack, self._address = attack, address
        self._selector = selectors.DefaultSelector()
        self._connections: list[socket.socket] = []

    def run(self) -> None:
        """Attack until the process is killed. Print a line when all connections have been opened."""
        for number in range(self._attack.n_connections):
            self._connections.append(self._connect(number))
        self._read_for(SETTLE_SECONDS)
        print("open", flush=True)
        while True:
            self._read_for(DRIP_SECONDS)
            for number in range(min(len(self._connections), self._attack.n_dripping)):
                self._do(number, self._drip)

    def _read_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (remaining := end - time.monotonic()) > 0:
            for key, _ in self._selector.select(remaining):
                self._do(key.data, self._read)

    def _connect(self, number: int) -> socket.socket:
        connection = socket.socket()
        connection.setblocking(False)
        if self._attack.reads:
            self._selector.register(connection, selectors.EVENT_READ, number)
        else:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect_ex(self._address)  # at once, unless the server's queue of new connections is full
        with suppress(OSError):
            connection.send(self._attack.opening)
        return connection

    def _read(self, connection: socket.socket) -> None:
        if not connection.recv(65_536):
            raise ConnectionResetError

    def _drip(self, connection: socket.socket) -> None:
        connection.send(self._attack.drip)

    def _do(self, number: int, step: Callable[[socket.socket], None]) -> None:
        """Do a step, and connect again if the server has closed the connection."""
        try:
            step(self._connections[number])
        except BlockingIOError:
            pass
        except OSError:
            if self._attack.reads:
                self._selector.unregister(self._connections[number])
            self._connections[number].close()
            self._connections[number] = self._connect(number)


@contextmanager
def attacking(name: str, server: Server) -> Iterator[None]:
    """Attack a server, in another process, during the block."""
    arguments = [sys.executable, "-m", "tests.support.attacks", name, server.url.removeprefix("http://")]
    with subprocess.Popen(arguments, cwd=PROJECT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"open\n"
            yield
        finally:
            process.kill()


@dataclass
class UsualClients:
    """Clients that predict one row again and again, and a health check, with their latencies."""

    server: Server
    seconds: list[float] = field(default_factory=list)
    health_seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator["UsualClients"]:
        """Send requests during the block."""
        predict = ("POST", "/predict", json.dumps(FLAT), {"Content-Type": "application/json"})
        tasks = [(predict, number % 2 == 0, self.seconds) for number in range(N_CLIENTS)]
        tasks.append((("GET", "/healthz", "", {}), False, self.health_seconds))
        threads = [threading.Thread(target=self._send_requests, args=task) for task in tasks]
        with running_threads(threads, self.stopping):
            yield self

    def _send_requests(self, request_: tuple[str, str, str, dict[str, str]], keeps: bool, seconds: list[float]) -> None:
        with closing(HTTPConnection(self.server.url.removeprefix("http://"), timeout=CLIENT_TIMEOUT)) as connection:
            while not self.stopping.wait(PAUSE):
                start = time.perf_counter()
                try:
                    connection.request(*request_)
                    response = connection.getresponse()
                    response.read()
                    if response.status != 200:
                        self.failed.append(f"{request_[1]}: {response.status}")
                except (OSError, HTTPException) as error:
                    self.failed.append(f"{request_[1]}: {error!r}")
                    connection.close()
                seconds.append(time.perf_counter() - start)
                if not keeps:
                    connection.close()

    def quantile(self, share: float) -> float:
        """Return a quantile of the latency of predictions in milliseconds; a failed request counts with its time."""
        return 1000 * float(np.quantile(self.seconds, share))

    @property
    def slowest_health_check(self) -> float:
        """The latency of the slowest health check in milliseconds."""
        return 1000 * max(self.health_seconds)


def peak_memory(server: Server) -> float:
    """Return the peak memory of the largest worker in MB."""
    statuses = [Path(f"/proc/{pid}/status").read_text(encoding="utf-8") for pid in server.workers()]
    return max(int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1000 for status in statuses)


def print_attacks(home: Path, label: str, arguments: str) -> None:
    """Print a row for each attack on a new server, with the figures of the same server before the attack."""
    for name in ATTACKS:
        with serving(home, environment={"GUNICORN_CMD_ARGS": arguments}) as server:
            wait_for(partial(server.answers, "/readyz"), "the model is published")
            with UsualClients(server).running() as before:
                time.sleep(DURATION)
            with attacking(name, server), UsualClients(server).running() as during:
                time.sleep(DURATION)
            cells = [name, label, f"{len(during.failed)} of {len(during.seconds) + len(during.health_seconds)}"]
            cells += [f"{before.quantile(share):.1f} / {during.quantile(share):.1f}" for share in (0.5, 0.99)]
            cells += [f"{before.slowest_health_check:.0f} / {during.slowest_health_check:.0f}", f"{peak_memory(server):.0f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print the table of all attacks, or run one attack."""
    if len(sys.argv) > 1:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        host, port = sys.argv[2].split(":")
        Attacker(ATTACKS[sys.argv[1]], (host, int(port))).run()
    print("| attack | worker | lost requests | p50, ms | p99, ms | slowest health check, ms | peak memory, MB |")
    print("|---|---|---:|---|---|---|---:|")
    with tempfile.TemporaryDirectory() as directory:
        empty_store = Path(directory) / "empty.db"
        tracking_store.Store(f"sqlite:///{empty_store}", artifact_root=None, ui="")
        (home := Path(directory) / "home").mkdir()
        promoted(home, "rentals", empty_store)
        print_attacks(home, "gthread", "--worker-class=gthread")
        print_attacks(home, "housing", "")


if __name__ == "__main__":
    main()
