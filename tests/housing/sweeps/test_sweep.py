"""Sweeps through the real command line: every job tracked, failures told, finished runs reused, stores made once."""

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
    """The list of the newest sweep."""
    newest = max((home / "outputs" / "sweeps").iterdir())
    found: list[dict[str, Any]] = json.loads((newest / "jobs.json").read_text())
    return found


def test_a_sweep_lists_its_jobs_in_order_keeps_the_best_and_is_reused(home: Path) -> None:
    arguments = ("housing.train", "-m", *QUICK, "model=decision_tree,linear", "log_model=best")
    first = command(home, *arguments, cwd=Path("/"))
    assert first.code == 0, first.err
    jobs = listed(home)
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
        kept = run_id == best["run_id"]
        assert (tags.MODEL_ID in run.data.tags) == kept  # log_model=best
        assert bool(store.client.api.list_artifacts(run_id, "figures")) == kept
    assert not list((home / "outputs").rglob("bundle"))  # nothing is left over

    second = command(home, *arguments)
    assert second.code == 0, second.err
    assert [(job["run_id"], job["reused"]) for job in listed(home)] == [(job["run_id"], True) for job in jobs]
    assert second.out.count("│ reused │") == 2
    assert len(list((home / "outputs" / "sweeps").iterdir())) == 2


def test_a_job_that_fails_is_told_and_the_others_go_on(home: Path) -> None:
    ended = command(home, "housing.train", "-m", *QUICK, "model=decision_tree", "model.estimator.max_depth=2,-1,3")
    assert ended.code == 1
    assert [job["status"] for job in listed(home)] == ["FINISHED", "FAILED", "FINISHED"]
    assert "2 of 3 runs finished" in ended.out
    assert "FAILED max_depth=-1: ConfigError: model.estimator of decision_tree cannot be fitted" in ended.out.replace("\n", " ")
    store = tracking_store.connect(config("train", "data=rentals").mlflow)
    (failed,) = store.client.api.search_runs(
        [store.client.experiment_id("rentals")], "attributes.status = 'FAILED' and tags.`housing.run_type` = 'run'"
    )
    assert "max_depth" in store.artifacts.read_text(failed.info.run_id, "traceback.txt")
    again = command(home, "housing.train", "-m", *QUICK, "model=decision_tree", "model.estimator.max_depth=2,-1,3")
    assert again.code == 1
    assert [job["reused"] for job in listed(home)] == [True, False, True]


def test_a_range_is_swept_from_the_command_line(home: Path) -> None:
    ended = command(
        home, "housing.train", "-m", *QUICK, "model=decision_tree", "model.estimator.max_depth=range(2,5)", "figures=false"
    )
    assert ended.code == 0, ended.err
    assert [job["overrides"][-2] for job in listed(home)] == [f"model.estimator.max_depth={depth}" for depth in (2, 3, 4)]


def test_a_sweep_without_a_job_is_told(home: Path) -> None:
    ended = command(home, "housing.train", "-m", *QUICK, "model=decision_tree", "model.estimator.max_depth=range(5,5)")
    assert ended.code == 1
    assert "error: the sweep has no job" in ended.err


def test_a_value_that_a_model_does_not_have_is_told_and_nothing_is_promised(home: Path) -> None:
    ended = command(home, "housing.train", "-m", *QUICK, "model=decision_tree,linear", "model.estimator.max_depth=3")
    assert ended.code == 1
    assert "Key 'max_depth' is not in struct" in ended.err
    assert "left no word" not in ended.out


def test_one_run_prints_one_block_with_its_link(home: Path) -> None:
    ended = command(home, "housing.train", *QUICK, "model=linear", "figures=false")
    assert ended.code == 0, ended.err
    assert len(ended.out.splitlines()) == 4
    assert "validation" in ended.out and "http://127.0.0.1:5000/#/experiments/" in ended.out
    assert ended.err == ""


def test_what_the_user_can_mend_is_told_without_a_traceback(home: Path) -> None:
    (home / "data" / "rentals.csv").unlink()
    ended = command(home, "housing.train", *QUICK)
    expected = f"error: {home}/data/rentals.csv is not there. Get it with: python -m housing.fetch data=rentals\n"
    assert (ended.code, ended.out, ended.err) == (1, "", expected)


def test_a_store_that_is_away_ends_the_sweep_before_its_jobs(home: Path) -> None:
    ended = command(
        home,
        "housing.train",
        "-m",
        *QUICK,
        "mlflow=server",
        "mlflow.retry_seconds=1",
        MLFLOW_TRACKING_URI="http://127.0.0.1:9",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
    )
    assert ended.code == 1
    assert "error: the MLflow store http://127.0.0.1:9 cannot be used" in ended.err
    assert "Traceback" not in ended.err


def test_debug_has_an_experiment_of_its_own(home: Path) -> None:
    ended = command(home, "housing.train", *QUICK, "debug=fast")
    assert ended.code == 0, ended.err
    store = tracking_store.connect(config("train", "data=rentals").mlflow)
    (run,) = store.client.api.search_runs([store.client.experiment_id("debug")])
    assert run.info.status == "FINISHED"


PRESETS = {path.stem for path in (PROJECT / "conf" / "experiment").glob("*.yaml")} - {"papers"}  # which is best on another split


@pytest.mark.parametrize(
    "experiment", [pytest.param(name, marks=pytest.mark.long if name == "best" else ()) for name in sorted(PRESETS)]
)
def test_every_preset_runs(home: Path, experiment: str) -> None:
    fetched = command(home, "housing.fetch", "data=synthetic", "data.rows=1500")
    assert fetched.code == 0, fetched.err
    ended = command(home, "housing.train", f"experiment={experiment}", "debug=fast", "data=synthetic", "data.rows=1500")
    assert ended.code == 0, ended.err


@pytest.mark.long
def test_four_processes_without_a_store_all_succeed(home: Path) -> None:
    (home / "mlflow.db").unlink()
    environ = {**os.environ, "HOUSING_HOME": str(home)}
    arguments = [sys.executable, "-m", "housing.train", *QUICK, "model=linear", "figures=false"]
    started = [
        subprocess.Popen(  # pylint: disable=consider-using-with  # all four at once
            [*arguments, f"seed={seed}"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for seed in range(4)
    ]
    ended = [(process.communicate(timeout=200)[1], process.returncode) for process in started]
    assert [code for _, code in ended] == [0] * 4, [err for err, _ in ended]
    store = tracking_store.Store(f"sqlite:///{home}/mlflow.db", artifact_root=None, ui="")
    runs = store.client.api.search_runs([store.client.experiment_id("rentals")])
    assert [run.info.status for run in runs] == ["FINISHED"] * 4


@pytest.mark.long
def test_a_sweep_that_is_told_to_stop_writes_down_what_it_has(home: Path) -> None:
    environ = {**os.environ, "HOUSING_HOME": str(home)}
    arguments = [sys.executable, "-m", "housing.train", "-m", *QUICK, "model=decision_tree", "seed=range(500)", "figures=false"]
    with subprocess.Popen(arguments, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: len(list(home.glob("outputs/sweeps/*/*/outcome.json"))) > 3, "some jobs are done")
        process.terminate()
    assert process.returncode == 143
    jobs = listed(home)
    assert {job["status"] for job in jobs} <= {"FINISHED", "KILLED", "LOST"}
    assert sum(job["status"] == "FINISHED" for job in jobs) >= 3
    assert not list((home / "outputs").rglob("bundle"))
    store = tracking_store.Store(f"sqlite:///{home}/mlflow.db", artifact_root=None, ui="")
    runs = store.client.api.search_runs([store.client.experiment_id("rentals")])
    assert {run.info.status for run in runs} <= {"FINISHED", "FAILED", "KILLED"}
