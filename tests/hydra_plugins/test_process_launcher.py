"""The processes launcher: jobs side by side, each of which fails alone."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from housing.runs.outcome import Outcome
from housing.tracking import store as tracking_store
from housing.tracking import tags
from housing.tracking.store import Store
from hydra_plugins.housing.process_launcher import THREAD_VARIABLES
from tests.support.commands import command
from tests.support.tables import RENTALS_SWEEP
from tests.support.waiting import wait_for

QUICK = RENTALS_SWEEP
PROCESSES = ("housing.train", *QUICK, "hydra/launcher=processes")
SLOW = ("housing.train", *QUICK, "model=slow", "seed=1,2,3,4,5,6")


@pytest.fixture
def store(home: Path) -> Store:
    """The store of the test's own home."""
    return tracking_store.Store(f"sqlite:///{home}/mlflow.db", artifact_root=f"{home}/mlartifacts", ui="")


def jobs(home: Path, sweep: int = -1) -> list[dict[str, Any]]:
    """The list that a sweep has left."""
    found: list[dict[str, Any]] = json.loads((sorted((home / "outputs" / "sweeps").iterdir())[sweep] / "jobs.json").read_text())
    return found


def runs(store: Store, kind: str = "run") -> list[Run]:
    """All runs of the rentals that are of a kind."""
    return list(store.client.api.search_runs([store.client.experiment_id("rentals")], f"tags.`housing.run_type` = '{kind}'"))


def running(home: Path) -> list[Outcome]:
    """What the jobs that run have written down of themselves, once they are known to MLflow."""
    found = [Outcome.read(path.parent) for path in home.glob("outputs/sweeps/*/*/outcome.json")]
    return [outcome for outcome in found if outcome and outcome.status == "RUNNING" and outcome.run_id]


@contextmanager
def started(home: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A sweep that goes on beside the test, in a group of its own, as a terminal gives it one."""
    with subprocess.Popen(
        [sys.executable, "-m", *arguments],
        env={**os.environ, "HOUSING_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        yield process
        process.communicate(timeout=120)


def assert_nothing_is_lost_or_done_twice(home: Path, store: Store) -> None:
    """Six jobs, each finished once; nothing left running, nothing half written."""
    assert [job["status"] for job in jobs(home)] == ["FINISHED"] * 6
    finished = [run for run in runs(store) if run.info.status == "FINISHED"]
    assert sorted(run.data.params["seed"] for run in finished) == list("123456")
    assert {run.info.status for run in (*runs(store), *runs(store, "sweep"))} <= {"FINISHED", "KILLED", "FAILED"}
    newest = max((home / "outputs" / "sweeps").iterdir())
    assert not [path for path in newest.rglob(".*") if path.is_file()]


@pytest.mark.long
def test_jobs_run_side_by_side_in_processes_that_are_used_again(home: Path, store: Store) -> None:
    ended = command(home, *PROCESSES, "model=decision_tree", "model.estimator.max_depth=range(2,10)")
    assert ended.code == 0, ended.err
    workers = Counter(run.data.tags["housing.process"] for run in runs(store))
    assert len(workers) == 2 and sum(workers.values()) == 8
    assert [job["overrides"][-1] for job in jobs(home)] == [f"model.estimator.max_depth={depth}" for depth in range(2, 10)]
    assert len([run for run in runs(store) if tags.MODEL_ID in run.data.tags]) == 1


@pytest.mark.long
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_jobs_times_threads_fit_the_cores(home: Path, store: Store, n_jobs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    seen = "+tags.threads='${oc.env:OMP_NUM_THREADS,unset}'"  # as the job's process was begun with it
    ended = command(home, *PROCESSES, "model=linear,decision_tree", f"hydra.launcher.n_jobs={n_jobs}", seen)
    assert ended.code == 0, ended.err
    expected = str(max(1, len(os.sched_getaffinity(0)) // n_jobs))
    assert [run.data.tags["housing.threads"] for run in runs(store)] == [expected] * 2


@pytest.mark.long
def test_what_one_launcher_and_sweeper_have_finished_others_reuse(home: Path) -> None:
    hydras = "hydra.sweeper._target_=hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
    trees = ("housing.train", *QUICK, "model=decision_tree", "model.estimator.max_depth=2,3,4")
    ways: tuple[list[str], ...] = (["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", hydras], ["hydra/launcher=processes"], [])
    for reused, way in zip((0, 3, 3), ways, strict=True):
        ended = command(home, *trees, *way)
        assert ended.code == 0, ended.err
        assert [job["reused"] for job in jobs(home)].count(True) == reused


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "option", "status", "reason"),
    [
        ("crash", "hydra.launcher.retries=1", "KILLED", "its process ended with exit code 3"),
        ("hang", "hydra.launcher.timeout_seconds=12", "KILLED", "ended after 12 s, the time limit of a job"),
        ("hungry", "hydra.launcher.memory_gb=4", "FAILED", "MemoryError"),
    ],
)
def test_a_job_that_goes_wrong_fails_alone(home: Path, store: Store, model: str, option: str, status: str, reason: str) -> None:
    ended = command(home, *PROCESSES, f"model=linear,{model},decision_tree", option)
    assert ended.code == 1
    assert [job["status"] for job in jobs(home)] == ["FINISHED", status, "FINISHED"]
    assert reason in jobs(home)[1]["error"] and reason in ended.out
    bad = [run for run in runs(store) if run.info.run_name.startswith(model)]
    assert [run.info.status for run in bad] == [status] * (2 if "retries" in option else 1)
    assert all(reason in run.data.tags[tags.ERROR] for run in bad)
    assert [run.info.status for run in runs(store, "sweep")] == ["FAILED"]


@pytest.mark.long
def test_a_job_killed_by_the_system_fails_alone_and_the_same_command_makes_it_good(home: Path, store: Store) -> None:
    with started(home, *SLOW, "hydra/launcher=processes") as sweep:
        wait_for(lambda: bool(running(home)), "a job runs")
        os.kill(int(running(home)[0].worker.split()[-1]), signal.SIGKILL)
    assert sweep.returncode == 1
    assert Counter(job["status"] for job in jobs(home)) == {"FINISHED": 5, "KILLED": 1}
    assert command(home, *SLOW, "hydra/launcher=processes").code == 0
    assert [job["reused"] for job in jobs(home)].count(True) == 5
    assert_nothing_is_lost_or_done_twice(home, store)


@pytest.mark.long
@pytest.mark.parametrize("launcher", ["basic", "processes"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_a_sweep_that_is_cut_off_goes_on_with_the_same_command(
    home: Path, store: Store, launcher: str, number: signal.Signals
) -> None:
    def finished() -> int:
        return sum(run.info.status == "FINISHED" for run in runs(store))

    with started(home, *SLOW, f"hydra/launcher={launcher}") as sweep:
        wait_for(lambda: finished() >= 2 and bool(running(home)), "two jobs are finished, another runs")
        if number == signal.SIGINT:
            os.killpg(sweep.pid, number)  # as a terminal does
        else:
            os.kill(sweep.pid, number)
    assert sweep.returncode == (130 if number == signal.SIGINT else -9)
    if number == signal.SIGINT:
        assert [run.info.status for run in runs(store, "sweep")] == ["KILLED"]
        assert "RUNNING" not in {run.info.status for run in runs(store)}
    again = command(home, *SLOW, f"hydra/launcher={launcher}")
    assert again.code == 0, again.err
    assert [job["reused"] for job in jobs(home)].count(True) >= 2
    assert_nothing_is_lost_or_done_twice(home, store)
    best = min((run for run in runs(store) if run.info.status == "FINISHED"), key=lambda run: run.data.metrics["rmse"])
    assert tags.MODEL_ID in best.data.tags  # whichever sweep fitted it
    assert [tags.MODEL_ID in run.data.tags for run in runs(store)].count(True) <= 2  # and the best at Ctrl-C


@pytest.mark.parametrize(("launcher", "beside"), [("basic", 0), ("processes", 10)])
def test_fail_fast_begins_no_further_job(home: Path, launcher: str, beside: int) -> None:
    """Beside the job that fails, another process may finish some before the failure is known."""
    arguments = ("model=decision_tree", "model.estimator.max_depth=-1,2,3,4,5,6,7,8,9,10,11,12,13,14,15", "fail_fast=true")
    ended = command(home, "housing.train", *QUICK, f"hydra/launcher={launcher}", *arguments)
    assert ended.code == 1
    statuses = [job["status"] for job in jobs(home)]
    finished = statuses.count("FINISHED")
    assert finished <= beside
    assert statuses == ["FAILED", *["FINISHED"] * finished, *["SKIPPED"] * (14 - finished)]
    assert "not begun: job 0 failed" in jobs(home)[-1]["error"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("hydra.launcher.n_jobs=0", "hydra.launcher.n_jobs is 0; allowed: 1 and more"),
        ("hydra.launcher.timeout_seconds=-1", "hydra.launcher.timeout_seconds is -1; allowed: seconds above 0, or null"),
        ("hydra.launcher.magic=1", "Key 'magic' is not in struct"),
    ],
)
def test_an_option_that_cannot_work_is_told(home: Path, option: str, message: str) -> None:
    ended = command(home, *PROCESSES, "model=linear,decision_tree", option)
    assert ended.code == 1
    assert message in ended.err and "Traceback" not in ended.err


def test_two_equal_sweeps_at_once_fit_each_job_once(home: Path, store: Store) -> None:
    with started(home, *SLOW) as one, started(home, *SLOW) as two:
        pass
    assert (one.returncode, two.returncode) == (0, 0)
    assert_nothing_is_lost_or_done_twice(home, store)
    assert sum(job["reused"] for sweep in (0, 1) for job in jobs(home, sweep)) == 6


def test_the_folder_of_an_earlier_sweep_is_not_overwritten(home: Path) -> None:
    arguments = ("housing.train", *QUICK, "model=linear", f"hydra.sweep.dir={home}/outputs/sweeps/mine")
    assert command(home, *arguments).code == 0
    before = (home / "outputs" / "sweeps" / "mine" / "jobs.json").read_bytes()
    again = command(home, *arguments)
    assert again.code == 1 and "holds a sweep already; give another hydra.sweep.dir" in again.err
    assert (home / "outputs" / "sweeps" / "mine" / "jobs.json").read_bytes() == before
