"""Dask workers that are jobs of a real Slurm cluster of two nodes on this machine: a sweep, and one fit over both."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from housing.runs.outcome import Outcome
from housing.tracking.store import Store
from tests.hydra_plugins.test_process_launcher import QUICK, jobs, running, started
from tests.support import cluster
from tests.support.commands import command, user_error
from tests.support.waiting import wait_for

pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed: locks/cluster.txt")

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.skipif(bool(cluster.missing()), reason=cluster.missing() or "nothing is missing"),
]


@pytest.fixture(scope="module")
def slurm() -> Iterator[cluster.Slurm]:
    """Start a Slurm cluster."""
    with cluster.shared_directory() as directory, cluster.slurm(directory) as running_cluster:
        yield running_cluster


@pytest.fixture
def shared(home: Path, slurm: cluster.Slurm, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home that every node reaches. Commands find the cluster in the environment."""
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    return home


def loopback(node: str) -> tuple[str, ...]:
    """Return overrides of a cluster whose nodes are all this machine, and manage no memory."""
    return (f"+{node}.cluster.scheduler_options.host=127.0.0.1", f"+{node}.cluster.job_directives_skip=[--mem]")


SWEEP = ("housing.train", *QUICK, "hydra/launcher=dask_slurm", *loopback("hydra.launcher"))


def submitted(slurm: cluster.Slurm) -> dict[str, str]:
    """Return the node of each Slurm job that has started, and that Slurm still lists."""
    lines = slurm.ask("squeue", "--noheader", "--states=all", "--format=%i %N").splitlines()
    return dict(line.split() for line in lines if len(line.split()) == 2)


def test_a_sweep_runs_on_workers_of_both_nodes_and_leaves_no_job_in_the_queue(shared: Path, slurm: cluster.Slurm) -> None:
    before = submitted(slurm)
    result = command(shared, *SWEEP, "model=decision_tree", "model.estimator.max_depth=2,3,4,5")
    assert result.code == 0, result.out + result.err
    assert [job["status"] for job in jobs(shared)] == ["FINISHED"] * 4
    workers = {job: node for job, node in submitted(slurm).items() if job not in before}
    assert sorted(workers.values()) == list(cluster.NODES)
    wait_for(lambda: slurm.ask("squeue", "--noheader") == "", "the jobs of the workers have ended")


def test_a_slurm_job_that_is_cancelled_loses_one_job_and_is_replaced(shared: Path, slurm: cluster.Slurm) -> None:
    before = submitted(slurm)
    with started(shared, *SWEEP, "model=slow", "seed=1,2,3", "hydra.launcher.workers=1") as sweep:
        wait_for(lambda: bool(running(shared)), "a job is running")
        [lost] = [job for job in submitted(slurm) if job not in before]
        slurm.ask("scancel", "--signal=KILL", "--full", lost)
    assert sweep.returncode == 0
    assert [job["status"] for job in jobs(shared)] == ["FINISHED"] * 3
    assert len(submitted(slurm).keys() - before.keys()) == 2


def test_an_interrupted_sweep_leaves_no_job_in_the_queue_and_no_key(shared: Path, slurm: cluster.Slurm) -> None:
    with started(shared, *SWEEP, "model=hang", "seed=1,2,3") as sweep:
        wait_for(lambda: bool(running(shared)), "a job is running")
        os.killpg(sweep.pid, signal.SIGINT)  # as a terminal does
    assert sweep.returncode == 130  # importing dask-jobqueue changes what SIGINT does
    wait_for(lambda: slurm.ask("squeue", "--noheader") == "", "the jobs of the workers have ended")
    assert {job["status"] for job in jobs(shared)} == {"KILLED"}
    assert not [*shared.glob(".dask-jobqueue*")]  # the key of the cluster


def test_one_fit_over_the_workers_gives_the_scores_of_one_process(shared: Path) -> None:
    arguments = ("housing.train", *QUICK, "model=xgboost", "model.estimator.n_estimators=20", "figures=false")
    assert command(shared, *arguments, "engine=stream").code == 0
    result = command(shared, *arguments, "engine=dask_slurm", *loopback("engine"))
    assert result.code == 0, result.out + result.err
    outcomes = [Outcome.read(file.parent) for file in shared.glob("outputs/**/outcome.json")]
    one, both = sorted((outcome for outcome in outcomes if outcome), key=lambda outcome: outcome.started_at)
    assert [*shared.glob("outputs/dask-workers/*.out")]
    stored = Store(f"sqlite:///{shared}/mlflow.db", artifact_root=None, ui="").artifacts.read_config(str(both.run_id))
    assert stored.engine.cluster is None  # a stored config starts no programs
    assert both.metrics["rmse"] == pytest.approx(one.metrics["rmse"], rel=1e-3)


def test_what_slurm_refuses_is_an_error_with_its_message(shared: Path) -> None:
    result = command(shared, *SWEEP, "model=linear,decision_tree", "hydra.launcher.cluster.queue=nowhere")
    assert "SLURMCluster could not start its jobs: sbatch: error" in user_error(result)
