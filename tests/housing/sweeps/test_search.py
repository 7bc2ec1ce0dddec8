"""Optuna searches: continued to their number of trials, reproducible, tolerant of failures, pruned between folds."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import IntDistribution

from housing.core.errors import ConfigError
from housing.sweeps import search
from housing.tracking import store as tracking
from tests.support.commands import command
from tests.support.tables import RENTALS_SWEEP
from tests.support.waiting import wait_for

QUICK = ("housing.train", *RENTALS_SWEEP)
SEARCH = (*QUICK, "search=decision_tree")
PROCESSES = "hydra/launcher=processes"


def jobs(home: Path) -> list[dict[str, Any]]:
    """Return the jobs of the newest sweep."""
    listed: list[dict[str, Any]] = json.loads((max((home / "outputs" / "sweeps").iterdir()) / "jobs.json").read_text())
    return listed


def trial_overrides(home: Path) -> list[list[str]]:
    """Return the varied overrides of each trial of the newest sweep."""
    return [[value for value in job["overrides"] if value.lstrip("+").startswith("model.")] for job in jobs(home)]


def trials(home: Path) -> Counter[str]:
    """Count the trials of the only study by state."""
    import optuna  # pylint: disable=import-outside-toplevel  # 1 s

    loaded = optuna.load_study(study_name=None, storage=f"sqlite:///{home}/outputs/search.db")
    return Counter(trial.state.name for trial in loaded.trials)


@pytest.mark.long
def test_a_continued_search_equals_one_without_interruption(home: Path) -> None:
    assert command(home, *SEARCH, "hydra.sweeper.n_trials=12").code == 0
    uninterrupted = trial_overrides(home)
    (home / "outputs" / "search.db").unlink()
    first = command(home, *SEARCH, "hydra.sweeper.n_trials=5")
    assert first.code == 0 and len(jobs(home)) == 5
    assert all(job["reused"] for job in jobs(home))  # the same seed suggests the same trials, whose runs are finished
    assert command(home, *SEARCH, "hydra.sweeper.n_trials=12").code == 0
    assert trial_overrides(home) == uninterrupted and len(uninterrupted) == 12  # earlier trials are listed with the new ones
    repeated = command(home, *SEARCH, "hydra.sweeper.n_trials=12")
    assert repeated.code == 0 and "12 of 12 trials known" in repeated.out and "12 of 12 runs finished" in repeated.out
    other_seed = command(home, *SEARCH, "hydra.sweeper.n_trials=5", "seed=1")
    assert other_seed.code == 0 and trial_overrides(home)[0] != uninterrupted[0]


@pytest.mark.long
@pytest.mark.parametrize("launcher", ["basic", "processes"])
def test_a_killed_search_finishes_its_open_trials_when_it_continues(home: Path, launcher: str) -> None:
    space = ("model=slow", "model.estimator.n_estimators=range(500,520)", "hydra/sweeper=search", "hydra.sweeper.n_trials=6")
    arguments = (*QUICK, *space, f"hydra/launcher={launcher}")
    with subprocess.Popen(
        [sys.executable, "-m", *arguments],
        env={**os.environ, "HOUSING_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as search:
        finished = '"FINISHED"'
        wait_for(
            lambda: any(finished in file.read_text() for file in home.glob("outputs/sweeps/*/*/outcome.json")),
            "a trial has finished",
        )
        wait_for(lambda: trials(home)["RUNNING"] > 0, "another is running")
        os.kill(search.pid, signal.SIGKILL)
    repeated = command(home, *arguments)
    assert repeated.code == 0, repeated.out + repeated.err
    assert trials(home)["COMPLETE"] == 6  # a trial that was killed before it had parameters is a failed one more
    assert [job["status"] for job in jobs(home)] == ["FINISHED"] * 6 and any(job["reused"] for job in jobs(home))
    store = tracking.Store(f"sqlite:///{home}/mlflow.db", artifact_root=f"{home}/mlartifacts", ui="")
    runs = store.client.api.search_runs([store.client.experiment_id("rentals")], "tags.`housing.run_type` = 'run'")
    finished_runs = Counter(run.data.params["model.estimator.n_estimators"] for run in runs if run.info.status == "FINISHED")
    assert set(finished_runs.values()) == {1} and "RUNNING" not in {run.info.status for run in runs}


@pytest.mark.long
def test_a_trial_that_was_killed_before_it_had_parameters_is_replaced(home: Path) -> None:
    import optuna  # pylint: disable=import-outside-toplevel  # 1 s

    assert command(home, *SEARCH, "hydra.sweeper.n_trials=1").code == 0
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{home}/outputs/search.db")
    study.ask()  # as a process leaves it that is killed at this point
    result = command(home, *SEARCH, "hydra.sweeper.n_trials=3")
    assert result.code == 0 and "1 of 3 trials known" in result.out, result.out + result.err
    assert trials(home) == {"COMPLETE": 3, "FAIL": 1}
    assert [job["status"] for job in jobs(home)] == ["FINISHED"] * 3


@pytest.mark.long
def test_a_search_continues_after_a_failed_trial(home: Path) -> None:
    space = ("model=decision_tree", "hydra/sweeper=search", "hydra.sweeper.n_trials=8", "model.estimator.max_depth=range(-3,4)")
    result = command(home, *QUICK, *space)
    assert result.code == 1, result.out + result.err
    states = trials(home)
    assert states["COMPLETE"] > 0 and states["FAIL"] > 0 and states.total() == 8
    statuses = Counter(job["status"] for job in jobs(home))
    assert (statuses["FINISHED"], statuses["FAILED"]) == (states["COMPLETE"], states["FAIL"])


@pytest.mark.long
def test_parallel_trials_keep_to_their_number_and_are_pruned_between_folds(home: Path) -> None:
    result = command(home, *SEARCH, PROCESSES, "evaluation=kfold", "hydra.sweeper.n_trials=16")
    assert result.code == 0, result.out + result.err
    states = trials(home)
    assert states["PRUNED"] > 0 and states["COMPLETE"] + states["PRUNED"] == 16
    pruned = [job for job in jobs(home) if job["status"] == "PRUNED"]
    assert len(pruned) == states["PRUNED"] and all("Pruned after fold" in job["error"] for job in pruned)
    store = tracking.Store(f"sqlite:///{home}/mlflow.db", artifact_root=f"{home}/mlartifacts", ui="")
    assert {store.runs.get(job["run_id"]).status for job in pruned} == {"KILLED"}
    assert len({job["worker"] for job in jobs(home)}) == 2


def test_several_objectives_give_a_pareto_set(home: Path) -> None:
    result = command(home, *SEARCH, "hydra.sweeper.objectives=[rmse,model_bytes]", "hydra.sweeper.n_trials=4")
    assert result.code == 0, result.out + result.err
    assert "* marks the Pareto set" in result.out and "│ 1* │" in result.out


@pytest.mark.long
def test_a_study_of_another_search_is_refused(home: Path) -> None:
    named = (*SEARCH, "hydra.sweeper.study_name=mine", "hydra.sweeper.n_trials=1")
    assert command(home, *named).code == 0
    changed = command(home, *named, "model.estimator.max_depth=range(2,5)")
    assert changed.code == 1 and "Traceback" not in changed.err
    assert "Study 'mine' in sqlite:///" in changed.err and "space differ" in changed.err
    rows = command(home, *named, "max_rows=300")
    assert rows.code == 1 and "base run differ" in rows.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hydra/sweeper=search"], "error: The search has no parameters to vary. Add a search space, such as search=xgboost"),
        (
            ["search=decision_tree", "hydra.sweeper.n_trials=0"],
            "error: hydra.sweeper.n_trials must be a whole number, at least 1 (got 0)",
        ),
        (
            ["search=decision_tree", "hydra.sweeper.n_jobs=0"],
            "error: hydra.sweeper.n_jobs must be a whole number, at least 1 (got 0)",
        ),
        (["search=decision_tree", "hydra.sweeper.n_jobs=2"], "Add: hydra/launcher=processes"),
        (["search=decision_tree", "hydra.sweeper.objectives=[speed]"], "hydra.sweeper.objectives must be at least one of rmse"),
        (["search=decision_tree", "model.estimator.max_depth=range(9,2)"], "range(9,2): the range is empty"),
        (["hydra/sweeper=search", "model.estimator.max_depth=glob(*)"], "glob(*). Expected choice()"),
        (["search=decision_tree", "hydra.sweeper.storage=nowhere"], "Could not open hydra.sweeper.storage=nowhere"),
        (["search=decision_tree", "hydra.sweeper.magic=1"], "has no option hydra.sweeper.magic"),
    ],
)
def test_an_impossible_search_is_an_error(home: Path, arguments: list[str], message: str) -> None:
    result = command(home, *QUICK, "model=decision_tree", *arguments)
    assert result.code == 1
    assert message in result.err and "Traceback" not in result.err


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("tag(log,interval(0,10))", "model.estimator.min_samples_leaf: tag(log) needs a lower bound above 0"),
        ("tag(log,interval(-1.5,10))", "model.estimator.min_samples_leaf: tag(log) needs a lower bound above 0"),
        ("tag(log,range(0,10))", "model.estimator.min_samples_leaf: tag(log) needs a lower bound above 0"),
        ("tag(log,range(1,10,2))", "tag(log) needs an interval(), or a range() of integers with step 1"),
        ("tag(log,choice(1,2))", "tag(log) needs an interval(), or a range() of integers with step 1"),
    ],
)
def test_a_logarithmic_scale_that_is_impossible_is_refused_with_its_parameter(values: str, message: str) -> None:
    override = OverridesParser.create().parse_override(f"model.estimator.min_samples_leaf={values}")
    with pytest.raises(ConfigError, match=re.escape(message)):
        search.parse_distribution(override)


def test_a_range_keeps_its_logarithmic_scale() -> None:
    override = OverridesParser.create().parse_override("model.estimator.min_samples_leaf=tag(log,range(1,10))")
    assert search.parse_distribution(override) == IntDistribution(1, 9, log=True)
