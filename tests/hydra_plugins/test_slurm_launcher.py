"""Sweeps on a Slurm of two nodes, with an MLflow server on PostgreSQL: all of them real, all on this machine."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow.entities import Run

from housing.tracking import store as tracking_store
from housing.tracking import tags
from housing.tracking.store import Store
from tests.hydra_plugins.test_process_launcher import QUICK, jobs, running, started
from tests.support import cluster
from tests.support.commands import command
from tests.support.tables import rentals_frame
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(cluster.missing()), reason=cluster.missing() or "all is there")]

SWEEP = ("housing.train", *QUICK, "mlflow=server", "hydra/launcher=slurm")


@dataclass(frozen=True)
class Parts:
    """What runs beside the tests."""

    slurm: cluster.Slurm
    mlflow: cluster.MlflowServer
    store: Store

    def runs(self, experiment: str, kind: str = "run") -> list[Run]:
        """All runs of an experiment that are of a kind."""
        found = self.store.client.api.search_runs(
            [self.store.client.experiment_id(experiment)], f"tags.`housing.run_type` = '{kind}'"
        )
        return list(found)

    def nodes(self) -> dict[str, str]:
        """For each job that Slurm remembers, the node that ran it."""
        told = self.slurm.ask("squeue", "--noheader", "--array", "--states=all", "--format=%i %N").splitlines()
        return dict(line.split() for line in told if len(line.split()) == 2)


@pytest.fixture(scope="module")
def parts() -> Iterator[Parts]:
    """A cluster with its store."""
    with ExitStack() as stack:
        place = stack.enter_context(cluster.place())
        slurm = stack.enter_context(cluster.slurm(place))
        mlflow = stack.enter_context(cluster.MlflowServer(place, stack.enter_context(cluster.postgres(place))))
        yield Parts(slurm, mlflow, tracking_store.Store(mlflow.address, artifact_root=None, ui="", retry_seconds=60))


@pytest.fixture
def shared(tmp_path: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that every node reaches, with the rentals; commands find the cluster and the store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", parts.mlflow.address)
    for name, value in parts.slurm.environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "data").mkdir()
    rentals_frame().to_csv(tmp_path / "data" / "rentals.csv", index=False)
    return tmp_path


def test_a_sweep_spreads_over_the_nodes_and_is_whole_in_the_store(shared: Path, parts: Parts) -> None:
    before = parts.nodes()
    ended = command(shared, *SWEEP, "experiment_name=spread", "model=decision_tree", "model.estimator.max_depth=2,3,4,5")
    assert ended.code == 0, ended.err
    assert [job["status"] for job in jobs(shared)] == ["FINISHED"] * 4
    assert Counter(node for job, node in parts.nodes().items() if job not in before).keys() == set(cluster.NODES)
    runs, [sweep] = parts.runs("spread"), parts.runs("spread", "sweep")
    assert sorted(run.data.params["model.estimator.max_depth"] for run in runs) == list("2345")
    assert {(run.info.status, run.data.tags[tags.PARENT]) for run in runs} == {("FINISHED", sweep.info.run_id)}
    assert sweep.info.status == "FINISHED"
    [best] = [run for run in runs if tags.MODEL_ID in run.data.tags]
    assert best.info.run_id == sweep.data.tags["housing.best_run"]
    with parts.store.artifacts.bundle(f"models:/{best.data.tags[tags.MODEL_ID]}") as bundle:
        assert any(bundle.iterdir())


def test_a_job_killed_on_its_node_fails_alone_and_another_node_makes_it_good(shared: Path, parts: Parts) -> None:
    arguments = (*SWEEP, "experiment_name=killed", "model=slow", "seed=1,2,3,4,5,6")
    with started(shared, *arguments) as sweep:
        wait_for(lambda: bool(running(shared)), "a job runs")
        os.kill(int(running(shared)[0].worker.split()[-1]), signal.SIGKILL)
    assert sweep.returncode == 1
    assert Counter(job["status"] for job in jobs(shared)) == {"FINISHED": 5, "KILLED": 1}
    [killed] = [run for run in parts.runs("killed") if run.info.status != "FINISHED"]
    assert killed.info.status == "KILLED"
    assert killed.data.tags[tags.ERROR] in {f"Slurm says FAILED on {node} (SIGKILL)" for node in cluster.NODES}
    assert [run.info.status for run in parts.runs("killed", "sweep")] == ["FAILED"]

    before = parts.nodes()
    again = command(shared, *arguments, "hydra.launcher.exclude=n1")
    assert again.code == 0, again.err
    assert {node for job, node in parts.nodes().items() if job not in before} == {"n2"}
    assert [job["reused"] for job in jobs(shared)].count(True) == 5
    finished = [run.data.params["seed"] for run in parts.runs("killed") if run.info.status == "FINISHED"]
    assert sorted(finished) == list("123456")


def test_a_store_that_is_away_for_a_while_costs_no_job(shared: Path, parts: Parts) -> None:
    with started(shared, *SWEEP, "experiment_name=away", "model=slow", "seed=1,2", "mlflow.retry_seconds=60") as sweep:
        wait_for(lambda: bool(running(shared)), "a job runs")
        parts.mlflow.stop()
        parts.mlflow.start()
    assert sweep.returncode == 0
    assert [job["status"] for job in jobs(shared)] == ["FINISHED"] * 2
    assert [run.info.status for run in parts.runs("away")] == ["FINISHED"] * 2
    assert any("is away" in log.read_text() for log in shared.glob("outputs/sweeps/*/*/train.log"))


def test_an_interrupted_sweep_leaves_nothing_in_the_queue(shared: Path, parts: Parts) -> None:
    with started(shared, *SWEEP, "experiment_name=interrupted", "model=hang", "seed=1,2,3") as sweep:
        wait_for(lambda: bool(running(shared)), "a job runs")
        os.killpg(sweep.pid, signal.SIGINT)  # as a terminal does
    assert sweep.returncode == 130
    assert parts.slurm.ask("squeue", "--noheader") == ""
    assert {run.info.status for run in (*parts.runs("interrupted"), *parts.runs("interrupted", "sweep"))} == {"KILLED"}
