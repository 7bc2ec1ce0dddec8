"""Failures around a sweep: a full disk and an unavailable store are reported, and no result is lost."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from housing.runs.outcome import Outcome
from housing.tracking import store as tracking
from tests.support.cluster import MlflowServer
from tests.support.commands import CommandResult, command
from tests.support.tables import RENTALS_SWEEP
from tests.support.waiting import SECONDS, wait_for

QUICK = ("housing.train", *RENTALS_SWEEP)
TREES = (*QUICK, "model=decision_tree", "model.estimator.max_depth=range(2,12)")
SLOW = (*QUICK, "model=slow", "model.estimator.n_estimators=range(500,504)", "mlflow=server")


def on_a_small_disk(home: Path, directory: Path, kilobytes: int, *arguments: str) -> CommandResult:
    """Run a command while `directory` is a small disk with a copy of its files. The disk exists only for the command."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    run = shlex.join([sys.executable, "-m", *arguments])
    backup = home.parent / f"{home.name}-backup"
    copy = f"rm -rf {backup} && cp -r {directory} {backup}"
    mount = f"{copy} && mount -t tmpfs -o size={kilobytes}k tmpfs {directory} && cp -r {backup}/. {directory}"
    process = subprocess.run(
        ["unshare", "--mount", "bash", "-c", f"{mount} && {run}"],
        env={**os.environ, "HOUSING_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return CommandResult(process.returncode, process.stdout, process.stderr)


@pytest.mark.long
def test_a_full_disk_is_reported_and_the_same_command_continues(home: Path) -> None:
    (home / "outputs").mkdir()
    full = on_a_small_disk(home, home / "outputs", 100, *TREES)
    assert full.code == 1
    assert "No space left on device" in full.err and f"{home}/outputs/sweeps/" in full.err and "Traceback" not in full.err
    assert "run the same command again" in full.err
    store = tracking.Store(f"sqlite:///{home}/mlflow.db", artifact_root=f"{home}/mlartifacts", ui="")
    runs = store.client.api.search_runs([store.client.experiment_id("rentals")])
    finished = sum(run.info.status == "FINISHED" for run in runs)
    assert finished >= 1 and {run.info.status for run in runs} == {"FINISHED", "FAILED"}
    repeated = command(home, *TREES)
    assert repeated.code == 0, repeated.err
    assert repeated.out.count("│ reused │") == finished and "10 of 10 runs finished" in repeated.out


@pytest.mark.long
def test_a_full_disk_of_the_store_is_reported(home: Path) -> None:
    size = sum(path.stat().st_size for path in home.rglob("*") if path.is_file()) // 1024
    for free in (20, 60, 100):  # kilobytes: the disk is full at the start, or later
        full = on_a_small_disk(home, home, size + free, *TREES, "mlflow.retry_seconds=1")
        assert full.code == 1
        assert "disk is full" in full.err or "No space left on device" in full.err
        assert "Traceback" not in full.err and "Warning" not in full.err


def some_are_finished(home: Path) -> bool:
    """Return whether a job has finished and another is running."""
    outcomes = [Outcome.read(path.parent) for path in home.glob("outputs/sweeps/*/*/outcome.json")]
    return {"FINISHED", "RUNNING"} <= {outcome.status for outcome in outcomes if outcome}


@pytest.mark.long
def test_an_unavailable_store_is_retried_and_then_reported(home: Path) -> None:
    server = MlflowServer(home, f"sqlite:///{home}/server.db")
    environ = {**os.environ, "HOUSING_HOME": str(home), "MLFLOW_TRACKING_URI": server.address}

    def sweep(retry_seconds: int) -> "subprocess.Popen[str]":
        arguments = [sys.executable, "-m", *SLOW, f"mlflow.retry_seconds={retry_seconds}"]
        return subprocess.Popen(arguments, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    with server:
        with sweep(retry_seconds=3) as impatient:
            wait_for(lambda: some_are_finished(home), "a job has finished, another is running")
            server.stop()
            out, err = impatient.communicate(timeout=SECONDS)
        assert impatient.returncode == 1
        assert "is unavailable" in out and "retrying in" in out  # while it waits
        assert "is unavailable" in err and "run the same command again" in err and "Traceback" not in err
        assert "FAILED" in out and "SKIPPED" in out  # the running job, and those that had not started

        server.start()
        with sweep(retry_seconds=100) as patient:
            newest = max(home.glob("outputs/sweeps/*"))
            wait_for(lambda: max(home.glob("outputs/sweeps/*")) != newest, "the next sweep has started")
            wait_for(lambda: len(list(max(home.glob("outputs/sweeps/*")).glob("*/outcome.json"))) > 1, "its jobs run")
            server.stop()
            server.start()
            out, err = patient.communicate(timeout=SECONDS)
        assert patient.returncode == 0, err
        assert "4 of 4 runs finished" in out and "reused" in out
        store = tracking.Store(server.address, artifact_root=None, ui="", retry_seconds=5)
        runs = store.client.api.search_runs([store.client.experiment_id("rentals")], "tags.`housing.run_type` = 'run'")
        finished = sorted(run.data.params["model.estimator.n_estimators"] for run in runs if run.info.status == "FINISHED")
        assert finished == ["500", "501", "502", "503"] and "RUNNING" not in {run.info.status for run in runs}
