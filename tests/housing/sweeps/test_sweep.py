"""Sweeps through the real command line: every job tracked, failures reported, finished runs reused, stores created once."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from housing.core.environment import PROJECT
from housing.tracking import store as tracking_store
from housing.tracking import tags
from tests.support.commands import command
from tests.support.tables import TABLES, config
from tests.support.waiting import wait_for

QUICK = (f"--config-dir={TABLES}", "data=rentals", "features=none", "refit=false", "interval=none")


def listed(home: Path) -> list[dict[str, Any]]:
    """Return the jobs of the newest sweep."""
    newest = max((home / "outputs" / "sweeps").iterdir())
    jobs: list[dict[str, Any]] = json.loads((newest / "jobs.json").read_text())
    return jobs


def test_a_sweep_lists_its_jobs_in_order_keeps_the_best_and_is_reused(home: Path) -> None:
    arguments = ("housing.train", "-m", *QUICK, "model=decision_tree,linear", "log_model=best")
    folder = home / "outputs" / "sweeps" / "2020"
    for job in ("1", "2"):
        (folder / job / ".bundle" / "members").mkdir(parents=True)  # left by a process that was killed while it removed a bundle
    first = command(home, *arguments, f"hydra.sweep.dir={folder}", cwd=Path("/"))
    assert first.code == 0, first.out + first.err
    jobs = listed(home)
    assert [job["job"] for job in jobs] == [1, 2]
    assert [job["overrides"][-2:] for job in jobs] == [
        [f"model={name}", "log_model=best"] for name in ("decision_tree", "linear")
    ]
    assert [(job["status"], job["reused"]) for job in jobs] == [("FINISHED", False)] * 2
    best = min(jobs, key=lambda job: job["metrics"]["rmse"])
    lines = first.out.splitlines()
    assert next(line for line in lines if "│ 1 │" in line).endswith(f"{best['run_id']} │")

    store = tracking_store.connect(config("train", "data=rentals").mlflow)
    runs = {job["run_id"]: store.client.api.get_run(job["run_id"]) for job in jobs}
    parents = {run.data.tags["mlflow.parentRunId"] for run in runs.values()}
    (parent,) = parents
    assert store.runs.get(parent).status == "FINISHED"
    assert json.loads(store.artifacts.read_text(parent, "jobs.json")) == jobs
    for run_id, run in runs.items():
        is_best = run_id == best["run_id"]
        assert (tags.MODEL_ID in run.data.tags) == is_best  # log_model=best
        assert bool(store.client.api.list_artifacts(run_id, "figures")) == is_best
    assert not list((home / "outputs").rglob("*bundle"))  # all are removed

    second = command(home, *arguments, "sweep.live=true")  # which is no part of a run's key
    assert second.code == 0, second.out + second.err
    assert "Page of the running sweep: http://127.0.0.1:" in second.out
    assert [(job["run_id"], job["reused"]) for job in listed(home)] == [(job["run_id"], True) for job in jobs]
    assert second.out.count("│ reused │") == 2
    assert len(list((home / "outputs" / "sweeps").iterdir())) == 2


def test_the_best_run_of_a_sweep_with_a_metric_of_ones_own_has_its_figures(home: Path) -> None:
    (home / "my" / "metric_functions").mkdir(parents=True)
    (home / "my" / "metric_functions" / "worst.yaml").write_text("worst: {_target_: sklearn.metrics.max_error}\n")
    folders = (f"--config-dir={home}/my", f"hydra.searchpath=[file://{TABLES}]")
    own = ("metric_functions=worst", "metric=worst", "model=linear")
    result = command(home, "housing.train", "-m", *folders, *QUICK[1:], *own)
    assert result.code == 0, result.out + result.err
    (job,) = listed(home)
    api = tracking_store.connect(config("train", "data=rentals").mlflow).client.api
    assert api.list_artifacts(job["run_id"], "figures")


def test_a_failed_job_is_reported_and_the_others_continue(home: Path) -> None:
    result = command(home, "housing.train", "-m", *QUICK, "model=decision_tree", "model.estimator.max_depth=2,-1,3")
    assert result.code == 1, result.out + result.err
    assert [job["status"] for job in listed(home)] == ["FINISHED", "FAILED", "FINISHED"]
    assert "2 of 3 runs finished" in result.out
    assert "FAILED max_depth=-1: TargetError: " in result.out
    store = tracking_store.connect(config("train", "data=rentals").mlflow)
    (failed,) = store.client.api.search_runs(
        [store.client.experiment_id("rentals")], "attributes.status = 'FAILED' and tags.`housing.run_type` = 'run'"
    )
    assert "max_depth" in store.artifacts.read_text(failed.info.run_id, "traceback.txt")
    repeated = command(home, "housing.train", "-m", *QUICK, "model=decision_tree", "model.estimator.max_depth=2,-1,3")
    assert repeated.code == 1
    assert [job["reused"] for job in listed(home)] == [True, False, True]


def test_a_range_is_swept_from_the_command_line(home: Path) -> None:
    result = command(
        home, "housing.train", "-m", *QUICK, "model=decision_tree", "model.estimator.max_depth=range(2,5)", "figures=false"
    )
    assert result.code == 0, result.out + result.err
    assert [job["overrides"][-2] for job in listed(home)] == [f"model.estimator.max_depth={depth}" for depth in (2, 3, 4)]


def test_an_empty_sweep_is_an_error(home: Path) -> None:
    result = command(home, "housing.train", "-m", *QUICK, "model=decision_tree", "model.estimator.max_depth=range(5,5)")
    assert result.code == 1
    assert "error: The sweep is empty" in result.err


def test_an_override_that_a_model_does_not_have_is_an_error_and_no_job_is_promised(home: Path) -> None:
    result = command(home, "housing.train", "-m", *QUICK, "model=decision_tree,linear", "model.estimator.max_depth=3")
    assert result.code == 1
    assert "model.estimator.max_depth does not exist for model=linear, only for model=decision_tree" in result.err
    assert "have not started" not in result.out


def test_one_run_prints_one_block_with_its_link(home: Path) -> None:
    result = command(home, "housing.train", *QUICK, "model=linear", "figures=false")
    assert result.code == 0, result.out + result.err
    assert len(result.out.splitlines()) == 5
    assert "next        python -m housing.promote" in result.out
    assert "validation" in result.out and "http://127.0.0.1:5000/#/experiments/" in result.out
    assert result.err == ""


def test_a_user_error_has_no_traceback(home: Path) -> None:
    (home / "data" / "rentals.csv").unlink()
    result = command(home, "housing.train", *QUICK)
    assert (result.code, result.out) == (1, "") and len(result.err.splitlines()) == 1
    assert f"{home}/data/rentals.csv" in result.err
    assert "python -m housing.fetch --config-dir=tests/tables data=rentals" in result.err


def test_an_unavailable_store_ends_the_sweep_before_its_jobs(home: Path) -> None:
    result = command(
        home,
        "housing.train",
        "-m",
        *QUICK,
        "mlflow=server",
        "mlflow.retry_seconds=1",
        MLFLOW_TRACKING_URI="http://127.0.0.1:9",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
    )
    assert result.code == 1
    assert "error: The MLflow store http://127.0.0.1:9 is unavailable" in result.err
    assert "Traceback" not in result.err


def test_debug_has_an_experiment_of_its_own(home: Path) -> None:
    result = command(home, "housing.train", *QUICK, "debug=fast")
    assert result.code == 0, result.out + result.err
    store = tracking_store.connect(config("train", "data=rentals").mlflow)
    (run,) = store.client.api.search_runs([store.client.experiment_id("debug")])
    assert run.info.status == "FINISHED"


PRESETS = {path.stem for path in (PROJECT / "conf" / "experiment").glob("*.yaml")} - {"papers"}  # needs another split


@pytest.mark.parametrize(
    "experiment", [pytest.param(name, marks=pytest.mark.long if name == "best" else ()) for name in sorted(PRESETS)]
)
def test_every_preset_runs(home: Path, experiment: str) -> None:
    fetched = command(home, "housing.fetch", "data=synthetic", "data.rows=1500")
    assert fetched.code == 0, fetched.err
    limit = ["max_candidates=1"] if experiment == "auto" else []  # instead of minutes
    result = command(home, "housing.train", f"experiment={experiment}", *limit, "debug=fast", "data=synthetic", "data.rows=1500")
    assert result.code == 0, result.out + result.err


@pytest.mark.long
def test_four_processes_without_a_store_all_succeed(home: Path) -> None:
    (home / "mlflow.db").unlink()
    environ = {**os.environ, "HOUSING_HOME": str(home)}
    arguments = [sys.executable, "-m", "housing.train", *QUICK, "model=linear", "figures=false"]
    started = [
        subprocess.Popen(  # pylint: disable=consider-using-with  # all four run at once
            [*arguments, f"seed={seed}"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for seed in range(4)
    ]
    result = [(process.communicate(timeout=200)[1], process.returncode) for process in started]
    assert [code for _, code in result] == [0] * 4, [err for err, _ in result]
    store = tracking_store.Store(f"sqlite:///{home}/mlflow.db", artifact_root=None, ui="")
    runs = store.client.api.search_runs([store.client.experiment_id("rentals")])
    assert [run.info.status for run in runs] == ["FINISHED"] * 4


FINALIZER = """
import os, signal
from housing.sweeps import lifecycle

class Finalizer:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        sum(range(10))

def main():
    Finalizer()
    lifecycle.exit_if_terminated()

lifecycle.run_and_close(main)
"""


def test_a_signal_that_arrives_in_a_finalizer_ends_the_sweep_before_the_next_job() -> None:
    ended = subprocess.run([sys.executable, "-c", FINALIZER], capture_output=True, text=True, check=False)
    assert ended.returncode == 143, ended.stderr
    assert "Exception ignored in" in ended.stderr  # Python prints it and goes on


@pytest.mark.long
def test_a_terminated_sweep_records_its_results(home: Path) -> None:
    environ = {**os.environ, "HOUSING_HOME": str(home)}
    arguments = [sys.executable, "-m", "housing.train", "-m", *QUICK, "model=decision_tree", "seed=range(500)", "figures=false"]
    with subprocess.Popen(arguments, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: len(list(home.glob("outputs/sweeps/*/*/outcome.json"))) > 3, "some jobs have finished")
        process.terminate()
    assert process.returncode == 143
    jobs = listed(home)
    assert {job["status"] for job in jobs} <= {"FINISHED", "KILLED", "LOST"}
    assert sum(job["status"] == "FINISHED" for job in jobs) >= 3
    assert not list((home / "outputs").rglob("bundle"))
    store = tracking_store.Store(f"sqlite:///{home}/mlflow.db", artifact_root=None, ui="")
    runs = store.client.api.search_runs([store.client.experiment_id("rentals")])
    assert {run.info.status for run in runs} <= {"FINISHED", "FAILED", "KILLED"}
