"""Nodes on one machine: network namespaces behind a bridge, and a Dask cluster with a worker in each.

A node has its own addresses and limit of memory. It shares disk and processors with the others.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import pytest

from tests.support.cluster import daemon
from tests.support.server import free_port
from tests.support.waiting import wait_for


@dataclass(frozen=True)
class Network:
    """A bridge with an address on this machine, and the names of namespaces that reach it."""

    address: str
    nodes: tuple[str, ...]

    def command(self, node: int, memory_gb: float) -> list[str]:
        """Return the beginning of a command line that runs a program on a node with a limit of memory for each process."""
        return ["ip", "netns", "exec", self.nodes[node], "prlimit", f"--data={int(memory_gb * 1e9)}"]


def missing() -> str:
    """Return why this machine cannot have nodes, or an empty string."""
    if shutil.which("ip") is None or shutil.which("prlimit") is None:
        return "not installed: iproute2 or util-linux"
    name = f"housing-{os.getpid()}-probe"
    probe = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if probe.returncode:
        return f"no network namespace can be made: {probe.stderr.strip()}"
    _ip("netns", "delete", name)
    return ""


@contextmanager
def network(n_nodes: int = 2) -> Iterator[Network]:
    """Make namespaces whose network is a bridge, and remove all of them afterwards."""
    number = os.getpid()
    prefix, bridge = f"10.{200 + number % 50}.{number // 50 % 250}", f"hb{number}"
    nodes = tuple(f"housing-{number}-{node}" for node in range(n_nodes))
    with ExitStack() as stack:
        _ip("link", "add", bridge, "type", "bridge")
        stack.callback(_ip, "link", "delete", bridge)
        _ip("address", "add", f"{prefix}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for index, node in enumerate(nodes):
            _ip("netns", "add", node)
            stack.callback(_ip, "netns", "delete", node)
            outside = f"hv{number}-{index}"
            _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", node)
            _ip("link", "set", outside, "master", bridge, "up")
            _ip("-n", node, "address", "add", f"{prefix}.{index + 2}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                _ip("-n", node, "link", "set", device, "up")
        yield Network(f"{prefix}.1", nodes)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


NEEDED = (
    pytest.mark.xdist_group("dask"),
    pytest.mark.skipif(bool(missing()), reason=missing() or "nothing is missing"),
    pytest.mark.skipif(find_spec("distributed") is None, reason="distributed is not installed: locks/cluster.txt"),
)  # marks of tests on such nodes


@dataclass
class DaskCluster:
    """A scheduler at the address of a network, and a supervised worker of one thread on some of its nodes."""

    network: Network
    folder: Path  # of logs
    nodes: Sequence[int] = (0, 1)
    memory_gb: float = 4.0
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self._running = ExitStack()
        self.scheduler: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        """The address of the scheduler."""
        return f"tcp://{self.network.address}:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the scheduler and the workers, and wait until they have found each other."""
        from distributed import Client  # pylint: disable=import-outside-toplevel  # an optional package

        dask = [sys.executable, "-m", "dask"]
        scheduler = [*dask, "scheduler", "--host", self.network.address, "--port", str(self.port), "--no-dashboard"]
        scheduler += ["--dashboard-address", f"{self.network.address}:0"]
        log = self.folder / "scheduler.log"
        log.unlink(missing_ok=True)
        self.scheduler = self._running.enter_context(daemon(scheduler, log, lambda: "Scheduler at" in log.read_text()))
        for node in self.nodes:
            worker = [*self.network.command(node, self.memory_gb), *dask, "worker", self.address, "--nthreads", "1"]
            worker += ["--no-dashboard", "--memory-limit", f"{self.memory_gb}GB", "--local-directory", str(self.folder)]
            self._running.enter_context(daemon(worker, self.folder / f"worker-{node}.log", lambda: True))
        with Client(self.address, set_as_default=False) as client:
            wait_for(lambda: len(client.nthreads()) == len(self.nodes), "all workers have registered")

    def kill_scheduler(self) -> None:
        """End the scheduler at once, as a crash does."""
        self.scheduler.kill()
        self.scheduler.wait()

    def stop(self) -> None:
        """End the scheduler and the workers."""
        self._running.close()
