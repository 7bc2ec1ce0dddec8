"""Sweeps over two nodes of a Dask cluster, each with a network of its own, and one MLflow server."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow.entities import Run

from housing.tracking import tags
from housing.tracking.store import Store
from tests.hydra_plugins.test_process_launcher import QUICK, jobs, running, started
from tests.support import network_nodes
from tests.support.cluster import MlflowServer
from tests.support.commands import command
from tests.support.tables import rentals_frame
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.cluster, *network_nodes.NEEDED]

N_JOBS = 40
FIRST = 100  # trees of the first job: long enough that a worker is killed while it fits
SWEEP = ("housing.train", *QUICK, "model=slow", f"model.estimator.n_estimators=range({FIRST},{FIRST + N_JOBS})")


@dataclass(frozen=True)
class Parts:
    """A Dask cluster of two nodes, and an MLflow server that both reach."""

    cluster: network_nodes.DaskCluster
    store: Store

    def sweep(self, experiment: str) -> tuple[str, ...]:
        """Return the command of a sweep on the cluster."""
        place = ["hydra/launcher=dask", f"hydra.launcher.address={self.cluster.address}", "mlflow=server"]
        return (*SWEEP, *place, f"experiment_name={experiment}")

    def runs(self, experiment: str) -> list[Run]:
        """Return the runs of an experiment."""
        matching = self.store.client.api.search_runs(
            [self.store.client.experiment_id(experiment)], "tags.`housing.run_type` = 'run'"
        )
        return list(matching)


@pytest.fixture(name="parts", scope="module")
def fixture_parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """A cluster of two nodes and its store."""
    folder = tmp_path_factory.mktemp("nodes")
    with ExitStack() as stack:
        network = stack.enter_context(network_nodes.network())
        server = stack.enter_context(MlflowServer(folder, f"sqlite:///{folder}/server.db", host=network.address))
        cluster = stack.enter_context(network_nodes.DaskCluster(network, folder))
        yield Parts(cluster, Store(server.address, artifact_root=None, ui="", retry_seconds=60))


@pytest.fixture(name="shared")
def fixture_shared(tmp_path: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that each node reaches, with the rentals. Commands find the store in the environment."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", parts.store.client.uri)
    (tmp_path / "data").mkdir()
    rentals_frame().to_csv(tmp_path / "data" / "rentals.csv", index=False)
    return tmp_path


@pytest.fixture(name="expected", scope="module")
def fixture_expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """The RMSE of each job by its number of trees, as the process launcher has it."""
    home = tmp_path_factory.mktemp("processes")
    (home / "data").mkdir()
    rentals_frame().to_csv(home / "data" / "rentals.csv", index=False)
    result = command(home, *SWEEP, "hydra/launcher=processes")
    assert result.code == 0, result.out + result.err
    return scores(home)


def scores(home: Path) -> dict[str, float]:
    """Return the RMSE of each job of the newest sweep."""
    trees = "model.estimator.n_estimators"
    return {next(text for text in job["overrides"] if text.startswith(trees)): job["metrics"]["rmse"] for job in jobs(home)}


def test_a_killed_worker_loses_one_job_which_runs_again(shared: Path, parts: Parts, expected: dict[str, float]) -> None:
    with started(shared, *parts.sweep("worker")) as sweep:
        wait_for(lambda: len(running(shared)) == 2 and bool(finished(parts, "worker")), "both nodes work, a job has finished")
        os.kill(int(running(shared)[0].worker.split()[-1]), signal.SIGKILL)
    assert sweep.returncode == 0
    runs = parts.runs("worker")
    assert Counter(run.info.status for run in runs) == {"FINISHED": N_JOBS, "KILLED": 1}
    [killed] = [run for run in runs if run.info.status == "KILLED"]
    assert "worker died" in killed.data.tags[tags.ERROR] and "It is retried" in killed.data.tags[tags.ERROR]
    assert scores(shared) == expected  # to the last digit


def test_a_killed_scheduler_ends_the_sweep_and_the_same_command_completes_it(
    shared: Path, parts: Parts, expected: dict[str, float]
) -> None:
    with started(shared, *parts.sweep("scheduler")) as sweep:
        wait_for(lambda: len(finished(parts, "scheduler")) >= 5, "five jobs have finished")
        parts.cluster.kill_scheduler()
        output, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == 1
    assert f"The connection to the Dask scheduler at {parts.cluster.address} was lost" in output
    assert f"dask scheduler --port {parts.cluster.port}" in output and "run the same command again" in output
    assert "Traceback" not in output
    parts.cluster.stop()
    parts.cluster.start()
    n_finished = len(finished(parts, "scheduler"))
    assert 5 <= n_finished < N_JOBS
    repeated = command(shared, *parts.sweep("scheduler"))
    assert repeated.code == 0, repeated.out + repeated.err
    assert [job["reused"] for job in jobs(shared)].count(True) == n_finished
    assert len(finished(parts, "scheduler")) == N_JOBS
    assert "RUNNING" not in {run.info.status for run in parts.runs("scheduler")}
    assert scores(shared) == expected


def finished(parts: Parts, experiment: str) -> list[Run]:
    """Return the finished runs of an experiment."""
    return [run for run in parts.runs(experiment) if run.info.status == "FINISHED"]
