"""The Dask launcher with an embedded cluster: jobs run on its workers, and each fails alone."""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from housing.tracking import store as tracking_store
from housing.tracking import tags
from housing.tracking.store import Store
from tests.hydra_plugins.test_process_launcher import QUICK, SLOW, jobs, running, runs, started
from tests.support.commands import command, user_error
from tests.support.waiting import wait_for

pytest.importorskip("distributed", reason="distributed is not installed: locks/cluster.txt")

DASK = ("housing.train", *QUICK, "hydra/launcher=dask")


@pytest.fixture
def store(home: Path) -> Store:
    """Return the store of the test's home."""
    return tracking_store.Store(f"sqlite:///{home}/mlflow.db", artifact_root=f"{home}/mlartifacts", ui="")


@pytest.mark.long
def test_broken_jobs_fail_alone_and_the_others_finish(home: Path, store: Store) -> None:
    """The limit is far more than a healthy job takes, and what crashes runs twice."""
    result = command(home, *DASK, "model=linear,crash,hang,decision_tree", "hydra.launcher.timeout_seconds=30")
    assert result.code == 1, result.out + result.err
    assert [job["status"] for job in jobs(home)] == ["FINISHED", "KILLED", "KILLED", "FINISHED"], result.out + result.err
    crash, hang = jobs(home)[1]["error"], jobs(home)[2]["error"]
    assert "worker died" in crash and "exceeded its time limit of 30 s" in hang
    for name, reason in (("crash", crash), ("hang", hang)):
        broken = [run for run in runs(store) if run.info.run_name.startswith(name)]
        assert [run.info.status for run in broken] == ["KILLED"] * 2
        assert {run.data.tags[tags.ERROR] for run in broken} == {reason, f"{reason} It is retried."}
    assert "Traceback" not in result.err


@pytest.mark.long
def test_ctrl_c_ends_the_jobs_and_the_same_command_continues(home: Path, store: Store) -> None:
    with started(home, *SLOW, "hydra/launcher=dask") as sweep:
        wait_for(
            lambda: bool(running(home)) and "FINISHED" in {run.info.status for run in runs(store)}, "one of two jobs is done"
        )
        workers = [int(outcome.worker.split()[-1]) for outcome in running(home)]
        os.killpg(sweep.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
        output, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == 130
    assert "Traceback" not in output and "tcp://" not in output  # no noise of workers that are gone
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]
    assert Counter(run.info.status for run in (*runs(store), *runs(store, "sweep")))["RUNNING"] == 0
    assert {job["status"] for job in jobs(home)} == {"FINISHED", "KILLED"}
    n_finished = Counter(run.info.status for run in runs(store))["FINISHED"]
    assert command(home, *SLOW, "hydra/launcher=processes").code == 0  # any launcher continues
    assert [job["reused"] for job in jobs(home)].count(True) == n_finished


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("hydra.launcher.workers=0", "hydra.launcher.workers must be a whole number, at least 1 (got 0)"),
        ("hydra.launcher.address=10.0.0.1", "hydra.launcher.address must be the address of a Dask scheduler"),
        ("hydra.launcher.connect_timeout_seconds=0", "hydra.launcher.connect_timeout_seconds must be a number above 0 (got 0)"),
    ],
)
def test_an_invalid_option_is_an_error(home: Path, option: str, message: str) -> None:
    error = user_error(command(home, *DASK, "model=linear,decision_tree", option))
    assert message in error and "call to target" not in error


@pytest.mark.long
def test_a_fit_over_workers_is_refused_in_a_job_of_a_worker(home: Path) -> None:
    """It would wait for workers that wait in the same way."""
    result = command(home, *DASK, "model=xgboost", "engine=dask", "seed=1,2", "hydra.launcher.retries=0")
    assert result.code == 1
    assert {job["status"] for job in jobs(home)} == {"FAILED"}
    assert "engine=dask cannot be used in a job of hydra/launcher=dask" in jobs(home)[0]["error"]
