"""The process launcher: jobs run side by side, and each fails alone."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
from tests.support.commands import command, fresh_command, user_error
from tests.support.tables import RENTALS_SWEEP
from tests.support.waiting import wait_for

QUICK = RENTALS_SWEEP
PROCESSES = ("housing.train", *QUICK, "hydra/launcher=processes")
SLOW = ("housing.train", *QUICK, "model=slow", "seed=1,2,3,4,5,6")


@pytest.fixture
def store(home: Path) -> Store:
    """Return the store of the test's home."""
    return tracking_store.Store(f"sqlite:///{home}/mlflow.db", artifact_root=f"{home}/mlartifacts", ui="")


def jobs(home: Path, sweep: int = -1) -> list[dict[str, Any]]:
    """Return the jobs of a sweep, by default the newest."""
    listed: list[dict[str, Any]] = json.loads((sorted((home / "outputs" / "sweeps").iterdir())[sweep] / "jobs.json").read_text())
    return listed


def runs(store: Store, run_type: str = "run") -> list[Run]:
    """Return the runs of the rentals of this type."""
    return list(store.client.api.search_runs([store.client.experiment_id("rentals")], f"tags.`housing.run_type` = '{run_type}'"))


def running(home: Path) -> list[Outcome]:
    """Return the outcomes of running jobs that have a run in MLflow."""
    outcomes = [Outcome.read(path.parent) for path in home.glob("outputs/sweeps/*/*/outcome.json")]
    return [outcome for outcome in outcomes if outcome and outcome.status == "RUNNING" and outcome.run_id]


@contextmanager
def started(home: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a sweep beside the test, in a process group of its own, as in a terminal. Print its output if it fails."""
    with subprocess.Popen(
        [sys.executable, "-m", *arguments],
        env={**os.environ, "HOUSING_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        yield process
        output = process.communicate(timeout=120)[0]
    if process.returncode:
        print(f"exit code {process.returncode} of {' '.join(arguments)}\n{output}")  # pytest shows it if the test fails


def assert_each_job_finished_once(home: Path, store: Store) -> None:
    """Check that six jobs finished once each, no run is still running, and no temporary file is left."""
    assert [job["status"] for job in jobs(home)] == ["FINISHED"] * 6
    finished = [run for run in runs(store) if run.info.status == "FINISHED"]
    assert sorted(run.data.params["seed"] for run in finished) == list("123456")
    assert {run.info.status for run in (*runs(store), *runs(store, "sweep"))} <= {"FINISHED", "KILLED", "FAILED"}
    newest = max((home / "outputs" / "sweeps").iterdir())
    assert not [path for path in newest.rglob(".*") if path.is_file()]


@pytest.mark.long
def test_jobs_run_side_by_side_in_reused_processes(home: Path, store: Store) -> None:
    result = command(home, *PROCESSES, "model=decision_tree", "model.estimator.max_depth=range(2,10)")
    assert result.code == 0, result.out + result.err
    workers = Counter(run.data.tags["housing.process"] for run in runs(store))
    assert len(workers) == 2 and sum(workers.values()) == 8
    assert [job["overrides"][-1] for job in jobs(home)] == [f"model.estimator.max_depth={depth}" for depth in range(2, 10)]
    assert len([run for run in runs(store) if tags.MODEL_ID in run.data.tags]) == 1


@pytest.mark.long
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_jobs_times_threads_equal_the_cores(home: Path, store: Store, n_jobs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    threads = "+tags.threads='${oc.env:OMP_NUM_THREADS,unset}'"  # the environment of the job's process
    result = command(home, *PROCESSES, "model=linear,decision_tree", f"hydra.launcher.n_jobs={n_jobs}", threads)
    assert result.code == 0, result.out + result.err
    expected = str(max(1, len(os.sched_getaffinity(0)) // n_jobs))
    assert [run.data.tags["housing.threads"] for run in runs(store)] == [expected] * 2


@pytest.mark.long
def test_one_variable_sets_the_threads_of_the_jobs(home: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    threads = "+tags.threads='${oc.env:OPENBLAS_NUM_THREADS,unset}'"
    result = command(home, *PROCESSES, "model=linear", threads)
    assert result.code == 0, result.out + result.err
    assert [run.data.tags["housing.threads"] for run in runs(store)] == ["3"]


@pytest.mark.long
def test_launchers_and_sweepers_reuse_runs_of_each_other(home: Path) -> None:
    basic_sweeper = "hydra.sweeper._target_=hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
    trees = ("housing.train", *QUICK, "model=decision_tree", "model.estimator.max_depth=2,3,4")
    joblib = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", basic_sweeper]
    launchers: tuple[list[str], ...] = (joblib, ["hydra/launcher=processes"], [])
    for reused, launcher in zip((0, 3, 3), launchers, strict=True):
        result = fresh_command(home, *trees, *launcher)  # joblib's processes hang below a fork
        assert result.code == 0, result.out + result.err
        assert [job["reused"] for job in jobs(home)].count(True) == reused


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "option", "status", "reason"),
    [
        ("crash", "hydra.launcher.retries=1", "KILLED", "process exited with code 3"),
        ("hang", "hydra.launcher.timeout_seconds=30", "KILLED", "exceeded its time limit of 30 s"),  # far more than a healthy job
        ("hungry", "hydra.launcher.memory_gb=4", "FAILED", "MemoryError"),
    ],
)
def test_a_broken_job_fails_alone(home: Path, store: Store, model: str, option: str, status: str, reason: str) -> None:
    result = command(home, *PROCESSES, f"model=linear,{model},decision_tree", option)
    assert result.code == 1, result.out + result.err
    assert [job["status"] for job in jobs(home)] == ["FINISHED", status, "FINISHED"], result.out + result.err
    assert reason in jobs(home)[1]["error"] and reason in result.out
    broken = [run for run in runs(store) if run.info.run_name.startswith(model)]
    assert [run.info.status for run in broken] == [status] * (2 if "retries" in option else 1)
    assert all(reason in run.data.tags[tags.ERROR] for run in broken)
    assert [run.info.status for run in runs(store, "sweep")] == ["FAILED"]


@pytest.mark.long
def test_a_killed_job_fails_alone_and_the_same_command_repeats_it(home: Path, store: Store) -> None:
    with started(home, *SLOW, "hydra/launcher=processes") as sweep:
        wait_for(lambda: bool(running(home)), "a job is running")
        os.kill(int(running(home)[0].worker.split()[-1]), signal.SIGKILL)
    assert sweep.returncode == 1
    assert Counter(job["status"] for job in jobs(home)) == {"FINISHED": 5, "KILLED": 1}
    assert command(home, *SLOW, "hydra/launcher=processes").code == 0
    assert [job["reused"] for job in jobs(home)].count(True) == 5
    assert_each_job_finished_once(home, store)


@pytest.mark.long
@pytest.mark.parametrize("launcher", ["basic", "processes"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_the_same_command_continues_an_interrupted_sweep(home: Path, store: Store, launcher: str, number: signal.Signals) -> None:
    def finished() -> int:
        return sum(run.info.status == "FINISHED" for run in runs(store))

    with started(home, *SLOW, f"hydra/launcher={launcher}") as sweep:
        wait_for(lambda: finished() >= 1 and bool(running(home)), "a job has finished, another is running")
        if number == signal.SIGINT:
            os.killpg(sweep.pid, number)  # as Ctrl-C in a terminal does
        else:
            os.kill(sweep.pid, number)
    assert sweep.returncode == (130 if number == signal.SIGINT else -9)
    if number == signal.SIGINT:
        assert [run.info.status for run in runs(store, "sweep")] == ["KILLED"]
        assert "RUNNING" not in {run.info.status for run in runs(store)}
    repeated = command(home, *SLOW, f"hydra/launcher={launcher}")
    assert repeated.code == 0, repeated.out + repeated.err
    assert [job["reused"] for job in jobs(home)].count(True) >= 1
    assert_each_job_finished_once(home, store)
    best = min((run for run in runs(store) if run.info.status == "FINISHED"), key=lambda run: run.data.metrics["rmse"])
    assert tags.MODEL_ID in best.data.tags  # logged by either sweep
    assert [tags.MODEL_ID in run.data.tags for run in runs(store)].count(True) <= 2  # and the best one at the time of Ctrl-C


@pytest.mark.parametrize(("launcher", "may_finish"), [("basic", 0), ("processes", 10)])
def test_fail_fast_starts_no_further_job(home: Path, launcher: str, may_finish: int) -> None:
    """A second process may finish some jobs before the failure is known."""
    arguments = ("model=decision_tree", "model.estimator.max_depth=-1,2,3,4,5,6,7,8,9,10,11,12,13,14,15", "fail_fast=true")
    result = command(home, "housing.train", *QUICK, f"hydra/launcher={launcher}", *arguments)
    assert result.code == 1, result.out + result.err
    statuses = [job["status"] for job in jobs(home)]
    finished = statuses.count("FINISHED")
    assert finished <= may_finish
    assert statuses == ["FAILED", *["FINISHED"] * finished, *["SKIPPED"] * (14 - finished)]
    assert "Not started: job 1 failed" in jobs(home)[-1]["error"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("hydra.launcher.n_jobs=0", "hydra.launcher.n_jobs must be a whole number, at least 1 (got 0)"),
        (
            "hydra.launcher.timeout_seconds=-1",
            "hydra.launcher.timeout_seconds must be a number of seconds above 0, or null (got -1)",
        ),
        ("hydra.launcher.magic=1", "has no option hydra.launcher.magic"),
    ],
)
def test_an_invalid_option_is_an_error(home: Path, option: str, message: str) -> None:
    error = user_error(command(home, *PROCESSES, "model=linear,decision_tree", option))
    assert message in error and "call to target" not in error


def test_two_equal_sweeps_at_once_fit_each_job_once(home: Path, store: Store) -> None:
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: command(home, *SLOW), range(2)))
    assert [result.code for result in results] == [0, 0], results
    assert_each_job_finished_once(home, store)
    assert sum(job["reused"] for sweep in (0, 1) for job in jobs(home, sweep)) == 6


def test_the_folder_of_an_earlier_sweep_is_not_overwritten(home: Path) -> None:
    arguments = ("housing.train", *QUICK, "model=linear", f"hydra.sweep.dir={home}/outputs/sweeps/mine")
    assert command(home, *arguments).code == 0
    before = (home / "outputs" / "sweeps" / "mine" / "jobs.json").read_bytes()
    repeated = command(home, *arguments)
    assert repeated.code == 1 and "already holds a sweep. Choose another hydra.sweep.dir" in repeated.err
    assert (home / "outputs" / "sweeps" / "mine" / "jobs.json").read_bytes() == before


def test_two_equal_sweeps_that_end_together_log_the_best_run_in_turn(home: Path, store: Store, tmp_path: Path) -> None:
    """While one sweep reads the bundle of the best run, the sweep that fitted it must wait before it removes the bundle."""
    sweep = ("housing.train", *QUICK, "model=linear", "seed=1,2")
    steps = tmp_path / "steps"
    steps.mkdir()
    paused = ("tests.support.paused_sweep", str(steps))
    with ThreadPoolExecutor(1) as pool:
        fitting = pool.submit(command, home, *paused, "fits", *sweep[1:])
        wait_for((steps / "closing").exists, "the first sweep has fitted all jobs")
        reading = command(home, *paused, "reads", *sweep[1:])
    assert (fitting.result().code, reading.code) == (0, 0), (fitting.result(), reading)
    assert [tags.MODEL_ID in run.data.tags for run in runs(store)].count(True) == 1
    assert not list((home / "outputs").rglob("bundle"))
