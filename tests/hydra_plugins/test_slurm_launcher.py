"""Sweeps on a real Slurm cluster of two nodes, with an MLflow server on PostgreSQL, all on this machine."""

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

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.skipif(bool(cluster.missing()), reason=cluster.missing() or "nothing is missing"),
]

SWEEP = ("housing.train", *QUICK, "mlflow=server", "hydra/launcher=slurm")


@dataclass(frozen=True)
class Parts:
    """The services beside the tests."""

    slurm: cluster.Slurm
    mlflow: cluster.MlflowServer
    store: Store

    def runs(self, experiment: str, run_type: str = "run") -> list[Run]:
        """Return the runs of an experiment of this type."""
        matching = self.store.client.api.search_runs(
            [self.store.client.experiment_id(experiment)], f"tags.`housing.run_type` = '{run_type}'"
        )
        return list(matching)

    def nodes(self) -> dict[str, str]:
        """Return the node of each job that Slurm still lists."""
        lines = self.slurm.ask("squeue", "--noheader", "--array", "--states=all", "--format=%i %N").splitlines()
        return dict(line.split() for line in lines if len(line.split()) == 2)


@pytest.fixture(scope="module")
def parts() -> Iterator[Parts]:
    """Start a cluster and its store."""
    with ExitStack() as stack:
        directory = stack.enter_context(cluster.shared_directory())
        slurm = stack.enter_context(cluster.slurm(directory))
        mlflow = stack.enter_context(cluster.MlflowServer(directory, stack.enter_context(cluster.postgres(directory))))
        yield Parts(slurm, mlflow, tracking_store.Store(mlflow.address, artifact_root=None, ui="", retry_seconds=60))


@pytest.fixture
def shared(tmp_path: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home that every node reaches, with the rentals. Commands find cluster and store in the environment."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", parts.mlflow.address)
    for name, value in parts.slurm.environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "data").mkdir()
    rentals_frame().to_csv(tmp_path / "data" / "rentals.csv", index=False)
    return tmp_path


def test_a_sweep_uses_all_nodes_and_is_complete_in_the_store(shared: Path, parts: Parts) -> None:
    before = parts.nodes()
    result = command(shared, *SWEEP, "experiment_name=spread", "model=decision_tree", "model.estimator.max_depth=2,3,4,5")
    assert result.code == 0, result.out + result.err
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


def test_a_job_killed_on_its_node_fails_alone_and_another_node_repeats_it(shared: Path, parts: Parts) -> None:
    arguments = (*SWEEP, "experiment_name=killed", "model=slow", "seed=1,2,3,4,5,6")
    with started(shared, *arguments) as sweep:
        wait_for(lambda: bool(running(shared)), "a job is running")
        os.kill(int(running(shared)[0].worker.split()[-1]), signal.SIGKILL)
    assert sweep.returncode == 1
    assert Counter(job["status"] for job in jobs(shared)) == {"FINISHED": 5, "KILLED": 1}
    [killed] = [run for run in parts.runs("killed") if run.info.status != "FINISHED"]
    assert killed.info.status == "KILLED"
    assert killed.data.tags[tags.ERROR] in {f"Slurm reports FAILED on {node} (SIGKILL)" for node in cluster.NODES}
    assert [run.info.status for run in parts.runs("killed", "sweep")] == ["FAILED"]

    before = parts.nodes()
    repeated = command(shared, *arguments, "hydra.launcher.exclude=n1")
    assert repeated.code == 0, repeated.out + repeated.err
    assert {node for job, node in parts.nodes().items() if job not in before} == {"n2"}
    assert [job["reused"] for job in jobs(shared)].count(True) == 5
    finished = [run.data.params["seed"] for run in parts.runs("killed") if run.info.status == "FINISHED"]
    assert sorted(finished) == list("123456")


def test_a_run_that_is_killed_does_not_end_the_other_runs_of_its_slurm_job(shared: Path, parts: Parts) -> None:
    before = parts.nodes()
    arguments = (*SWEEP, "experiment_name=several", "model=slow", "seed=1,2,3,4,5,6,7", "hydra.launcher.runs_per_job=2")
    with started(shared, *arguments) as sweep:
        wait_for(lambda: bool(running(shared)), "a job is running")
        os.kill(int(running(shared)[0].worker.split()[-1]), signal.SIGKILL)
    assert sweep.returncode == 1
    assert Counter(job["status"] for job in jobs(shared)) == {"FINISHED": 6, "KILLED": 1}
    [killed] = [job for job in jobs(shared) if job["status"] == "KILLED"]
    assert "killed by SIGKILL" in killed["error"]
    in_array = {job for job in parts.nodes() if job not in before}
    assert len(in_array) == 4 and len({job.partition("_")[0] for job in in_array}) == 2  # MaxArraySize=4: arrays of up to 3 jobs
    assert sorted(run.info.status for run in parts.runs("several")) == ["FINISHED"] * 6 + ["KILLED"]


def test_a_short_outage_of_the_store_fails_no_job(shared: Path, parts: Parts) -> None:
    with started(shared, *SWEEP, "experiment_name=away", "model=slow", "seed=1,2", "mlflow.retry_seconds=180") as sweep:
        wait_for(lambda: bool(running(shared)), "a job is running")
        parts.mlflow.stop()
        parts.mlflow.start()
    assert sweep.returncode == 0
    assert [job["status"] for job in jobs(shared)] == ["FINISHED"] * 2
    assert [run.info.status for run in parts.runs("away")] == ["FINISHED"] * 2
    assert any("is unavailable" in log.read_text() for log in shared.glob("outputs/sweeps/*/*/train.log"))


def test_an_interrupted_sweep_leaves_no_job_in_the_queue(shared: Path, parts: Parts) -> None:
    with started(shared, *SWEEP, "experiment_name=interrupted", "model=hang", "seed=1,2,3") as sweep:
        wait_for(lambda: bool(running(shared)), "a job is running")
        os.killpg(sweep.pid, signal.SIGINT)  # as a terminal does
    assert sweep.returncode == 130
    assert parts.slurm.ask("squeue", "--noheader") == ""
    assert {run.info.status for run in (*parts.runs("interrupted"), *parts.runs("interrupted", "sweep"))} == {"KILLED"}
