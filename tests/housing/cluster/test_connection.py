"""Connections to a Dask cluster."""

import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from housing.cluster.connection import ClusterSettings, connected
from housing.core.errors import ClusterError, ConfigError

if TYPE_CHECKING:
    from distributed import Client

EMBEDDED = ClusterSettings(address=None, workers=1, memory_gb=None, timeout_seconds=30)


@pytest.fixture(name="client", scope="module")
def fixture_client() -> "Iterator[Client]":
    """A client of an embedded cluster of one worker."""
    pytest.importorskip("distributed", reason="distributed is not installed: locks/cluster.txt")
    with connected(EMBEDDED) as client:
        yield client


def free_port() -> int:
    """Return a port of this machine on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_an_embedded_cluster_runs_work_in_other_processes(client: "Client") -> None:
    assert client.submit(os.getpid).result() != os.getpid()


def test_nobody_on_another_machine_reaches_an_embedded_cluster(client: "Client") -> None:
    info = client.scheduler_info()
    workers = info["workers"]
    addresses = [info["address"], *workers, *(worker["nanny"] for worker in workers.values())]
    services = [*info["services"].values(), *(port for worker in workers.values() for port in worker["services"].values())]
    ports = [*(int(address.rpartition(":")[2]) for address in addresses), *services]
    assert len(ports) >= 4
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), timeout=5)  # another address of this machine


def test_a_scheduler_without_workers_is_an_error_with_the_next_command() -> None:
    distributed = pytest.importorskip("distributed", reason="distributed is not installed: locks/cluster.txt")
    with distributed.LocalCluster(
        n_workers=0, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as cluster:
        address = cluster.scheduler_address
        message = f"at {address} has no worker after 0.5 s.*dask worker {address} --nthreads 1"
        with pytest.raises(ClusterError, match=message), connected(replace(EMBEDDED, address=address, timeout_seconds=0.5)):
            pass


def test_a_scheduler_that_does_not_answer_is_an_error_with_the_next_command() -> None:
    pytest.importorskip("distributed", reason="distributed is not installed: locks/cluster.txt")
    port = free_port()
    message = f"No Dask scheduler answered at tcp://127.0.0.1:{port} within 0.5 s.*dask scheduler --port {port}"
    settings = replace(EMBEDDED, address=f"tcp://127.0.0.1:{port}", timeout_seconds=0.5)
    with pytest.raises(ClusterError, match=message), connected(settings):
        pass


def test_without_dask_the_error_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"pip install 'housing\[cluster\]'"), connected(EMBEDDED):
        pass


@pytest.mark.parametrize(("key", "value"), [("address", "10.0.0.1"), ("workers", 0), ("memory_gb", -1), ("timeout_seconds", 0)])
def test_invalid_settings_are_refused_by_name(key: str, value: Any) -> None:
    node = {"address": None, "workers": 2, "memory_gb": None, "timeout_seconds": 30, key: value}
    with pytest.raises(ConfigError, match=rf"hydra\.launcher\.{key} must be .* \(got {value!r}\)"):
        ClusterSettings.from_config(node, "hydra.launcher")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"address": "tcp://10.0.0.1:8786"}, "engine.address must be null if engine.cluster starts a scheduler of its own"),
        ({"cluster": {"_target_": "nowhere.Cluster"}}, r"import engine.cluster._target_=nowhere.Cluster: .*'housing\[cluster\]'"),
        ({"cluster": {"_target_": "os.path.join"}}, "import engine.cluster._target_=os.path.join: .*the class of a Dask cluster"),
    ],
)
def test_a_cluster_that_cannot_be_started_is_refused(changed: dict[str, Any], message: str) -> None:
    node = {"address": None, "workers": 2, "memory_gb": None, "timeout_seconds": 30, "cluster": {"_target_": "builtins.dict"}}
    with pytest.raises(ConfigError, match=message):
        ClusterSettings.from_config({**node, **changed}, "engine")


def test_the_command_starts_and_ends_a_cluster_of_any_class() -> None:
    pytest.importorskip("distributed", reason="distributed is not installed: locks/cluster.txt")
    config = {"_target_": "distributed.LocalCluster", "n_workers": 0, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with connected(replace(EMBEDDED, workers=2, cluster=config)) as client:
        client.wait_for_workers(2, timeout=30)
        workers = client.run(os.getpid).values()
    assert not [worker for worker in workers if os.path.exists(f"/proc/{worker}")]


def test_an_option_that_the_class_does_not_have_is_refused() -> None:
    pytest.importorskip("distributed", reason="distributed is not installed: locks/cluster.txt")
    config = {"_target_": "distributed.LocalCluster", "n_worker": 0, "processes": False, "dashboard_address": None}
    message = "Could not create distributed.LocalCluster: .*n_worker.*python -m pydoc distributed.LocalCluster"
    with pytest.raises(ConfigError, match=message), connected(replace(EMBEDDED, cluster=config)):
        pass
