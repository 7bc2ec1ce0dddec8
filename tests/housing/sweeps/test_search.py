"""Optuna searches: continued to their number of trials, reproducible, told of failures, pruned between folds."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from housing.tracking import store as tracking
from tests.support.commands import command
from tests.support.tables import RENTALS_SWEEP
from tests.support.waiting import wait_for

QUICK = ("housing.train", *RENTALS_SWEEP)
SEARCH = (*QUICK, "search=decision_tree")
PROCESSES = "hydra/launcher=processes"


def jobs(home: Path) -> list[dict[str, Any]]:
    """The list of the newest sweep."""
    found: list[dict[str, Any]] = json.loads((max((home / "outputs" / "sweeps").iterdir()) / "jobs.json").read_text())
    return found


def tried(home: Path) -> list[list[str]]:
    """What each trial of the newest sweep was asked to try."""
    return [[asked for asked in job["overrides"] if asked.lstrip("+").startswith("model.")] for job in jobs(home)]


def trials(home: Path) -> Counter[str]:
    """How many trials of the only study are in which state."""
    import optuna  # pylint: disable=import-outside-toplevel  # a second

    loaded = optuna.load_study(study_name=None, storage=f"sqlite:///{home}/outputs/search.db")  # which may hold no other
    return Counter(trial.state.name for trial in loaded.trials)


@pytest.mark.long
def test_a_search_goes_on_to_its_number_of_trials_as_if_it_had_not_stopped(home: Path) -> None:
    assert command(home, *SEARCH, "hydra.sweeper.n_trials=12").code == 0
    whole = tried(home)
    (home / "outputs" / "search.db").unlink()
    rest = command(home, *SEARCH, "hydra.sweeper.n_trials=5")
    assert rest.code == 0 and len(jobs(home)) == 5
    assert all(job["reused"] for job in jobs(home))  # the same seed asks for the same trials, which are known
    assert command(home, *SEARCH, "hydra.sweeper.n_trials=12").code == 0
    assert tried(home) == whole and len(whole) == 12  # those of before are shown with the new ones
    again = command(home, *SEARCH, "hydra.sweeper.n_trials=12")
    assert again.code == 0 and "12 of 12 trials known" in again.out and "12 of 12 runs finished" in again.out
    other = command(home, *SEARCH, "hydra.sweeper.n_trials=5", "seed=1")
    assert other.code == 0 and tried(home)[0] != whole[0]


@pytest.mark.long
@pytest.mark.parametrize("launcher", ["basic", "processes"])
def test_a_search_that_is_killed_ends_what_it_had_begun(home: Path, launcher: str) -> None:
    space = ("model=slow", "model.estimator.n_estimators=range(500,520)", "hydra/sweeper=search", "hydra.sweeper.n_trials=6")
    arguments = (*QUICK, *space, f"hydra/launcher={launcher}")
    with subprocess.Popen(
        [sys.executable, "-m", *arguments],
        env={**os.environ, "HOUSING_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as search:
        finished = '"FINISHED"'
        wait_for(lambda: any(finished in o.read_text() for o in home.glob("outputs/sweeps/*/*/outcome.json")), "a trial is over")
        wait_for(lambda: trials(home)["RUNNING"] > 0, "another runs")
        os.kill(search.pid, signal.SIGKILL)
    again = command(home, *arguments)
    assert again.code == 0, again.err
    assert trials(home) == {"COMPLETE": 6}
    assert [job["status"] for job in jobs(home)] == ["FINISHED"] * 6 and any(job["reused"] for job in jobs(home))
    store = tracking.Store(f"sqlite:///{home}/mlflow.db", artifact_root=f"{home}/mlartifacts", ui="")
    runs = store.client.api.search_runs([store.client.experiment_id("rentals")], "tags.`housing.run_type` = 'run'")
    done = Counter(run.data.params["model.estimator.n_estimators"] for run in runs if run.info.status == "FINISHED")
    assert set(done.values()) == {1} and "RUNNING" not in {run.info.status for run in runs}


def test_a_trial_that_fails_is_told_and_the_search_goes_on(home: Path) -> None:
    space = ("model=decision_tree", "hydra/sweeper=search", "hydra.sweeper.n_trials=8", "model.estimator.max_depth=range(-3,4)")
    ended = command(home, *QUICK, *space)
    assert ended.code == 1
    states = trials(home)
    assert states["COMPLETE"] > 0 and states["FAIL"] > 0 and states.total() == 8
    statuses = Counter(job["status"] for job in jobs(home))
    assert (statuses["FINISHED"], statuses["FAILED"]) == (states["COMPLETE"], states["FAIL"])


@pytest.mark.long
def test_trials_side_by_side_are_as_many_as_asked_and_pruned_between_folds(home: Path) -> None:
    ended = command(home, *SEARCH, PROCESSES, "evaluation=kfold", "hydra.sweeper.n_trials=16")
    assert ended.code == 0, ended.err
    states = trials(home)
    assert states["PRUNED"] > 0 and states["COMPLETE"] + states["PRUNED"] == 16
    pruned = [job for job in jobs(home) if job["status"] == "PRUNED"]
    assert len(pruned) == states["PRUNED"] and all("given up after fold" in job["error"] for job in pruned)
    store = tracking.Store(f"sqlite:///{home}/mlflow.db", artifact_root=f"{home}/mlartifacts", ui="")
    assert {store.runs.get(job["run_id"]).status for job in pruned} == {"KILLED"}
    assert len({job["worker"] for job in jobs(home)}) == 2


def test_several_objectives_give_a_pareto_set(home: Path) -> None:
    ended = command(home, *SEARCH, "hydra.sweeper.objectives=[rmse,model_bytes]", "hydra.sweeper.n_trials=8")
    assert ended.code == 0, ended.err
    assert "* the Pareto set" in ended.out and "│ 1* │" in ended.out


@pytest.mark.long
def test_a_study_of_another_search_is_refused(home: Path) -> None:
    named = (*SEARCH, "hydra.sweeper.study_name=mine", "hydra.sweeper.n_trials=1")
    assert command(home, *named).code == 0
    changed = command(home, *named, "model.estimator.max_depth=range(2,5)")
    assert changed.code == 1 and "Traceback" not in changed.err
    assert "study 'mine' in sqlite:///" in changed.err and "its space differ" in changed.err
    rows = command(home, *named, "max_rows=300")
    assert rows.code == 1 and "its base run differ" in rows.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hydra/sweeper=search"], "error: the search has nothing to vary; allowed: a space such as search=xgboost"),
        (["search=decision_tree", "hydra.sweeper.n_trials=0"], "error: hydra.sweeper.n_trials is 0; allowed: 1 and more"),
        (["search=decision_tree", "hydra.sweeper.n_jobs=0"], "error: hydra.sweeper.n_jobs is 0; allowed: 1 and more"),
        (["search=decision_tree", "hydra.sweeper.n_jobs=2"], "is 2 with one process; add hydra/launcher=processes"),
        (["search=decision_tree", "hydra.sweeper.objectives=[speed]"], "objectives is ['speed']; allowed: one or more of rmse"),
        (["search=decision_tree", "model.estimator.max_depth=range(9,2)"], "range(9,2): the range is empty"),
        (["hydra/sweeper=search", "model.estimator.max_depth=glob(*)"], "glob(*) cannot be searched; allowed: choice()"),
        (["search=decision_tree", "hydra.sweeper.storage=nowhere"], "hydra.sweeper.storage is nowhere, which cannot be used"),
        (["search=decision_tree", "hydra.sweeper.magic=1"], "Key 'magic' is not in struct"),
    ],
)
def test_what_cannot_be_searched_is_told(home: Path, arguments: list[str], message: str) -> None:
    ended = command(home, *QUICK, "model=decision_tree", *arguments)
    assert ended.code == 1
    assert message in ended.err and "Traceback" not in ended.err
