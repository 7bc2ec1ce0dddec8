"""experiment=auto: the best ensemble within a time budget."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow.entities import Run
from omegaconf import DictConfig

from housing.automl.search import search
from housing.bundle.array_files import read_arrays
from housing.bundle.bundle import Bundle
from housing.core.errors import ConfigError
from housing.data import table as tables
from housing.data.split import split
from housing.runs.run import Job, run
from housing.tracking import store as tracking_store
from housing.tracking.store import Store
from tests.support.commands import command, user_error
from tests.support.slow_ridge import SlowRidge
from tests.support.tables import TABLES, config
from tests.support.waiting import wait_for

AUTO = (
    "data=rentals",
    "experiment=auto",
    "features=none",
    "interval=none",
    "figures=false",
    "folds=2",
    "minutes=1",
    "max_candidates=2",
    "target.min_skewness=null",
    "max_relative_rmse=10",
)
SEARCH_PATH = f"hydra.searchpath=[file://{TABLES}]"
FEW_ROUNDS = "candidates.boosted.model.estimator.n_estimators=60"


def only(*names: str) -> list[str]:
    """Return the overrides that leave out all candidates but these."""
    return [f"candidates.{name}=null" for name in config("train", "experiment=auto").candidates if name not in names]


def searched(home: Path, *overrides: str, names: tuple[str, ...] = ("boosted", "ridge")) -> DictConfig:
    """Search among some candidates in this process, and return the config of the ensemble's run."""
    overrides_ = [*AUTO, *only(*names), *([FEW_ROUNDS] if "boosted" in names else []), *overrides]
    return search(config("train", *overrides_), Job(overrides_, home / "outputs" / "auto"))


def runs(home: Path, run_type: str) -> list[Run]:
    """Return the runs of a type, the oldest first."""
    api = store(home).client.api
    condition, order = f"tags.`housing.run_type` = '{run_type}'", ["attributes.start_time ASC"]
    return list(api.search_runs([store(home).client.experiment_id("rentals")], condition, order_by=order))


def store(home: Path) -> Store:
    """Return the store of a home."""
    return tracking_store.Store(f"sqlite:///{home}/mlflow.db", artifact_root=f"{home}/mlartifacts", ui="")


def test_the_result_is_an_ordinary_run_of_an_ensemble_of_candidates(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cfg = searched(home)
    outcome = run(cfg, Job([], home / "outputs" / "run"))
    printed = capfd.readouterr().out
    assert "   1  boosted" in printed and re.search(r"   2  ridge .* best rmse \d+\.\d+ \(members: \d\)", printed)
    candidates, (search_run,) = runs(home, "candidate"), runs(home, "search")
    assert {run_.data.tags["mlflow.parentRunId"] for run_ in candidates} == {search_run.info.run_id}
    assert len(candidates) == 3  # the first with each transform
    record = store(home).runs.get(str(outcome.run_id))
    assert record.tags["housing.search"] == search_run.info.run_id and record.tags["housing.run_type"] == "run"
    assert search_run.data.metrics["rmse"] <= min(run_.data.metrics["rmse"] for run_ in candidates)
    with store(home).artifacts.bundle(f"models:/{record.tags['housing.model_id']}") as folder:
        members = Bundle.read(folder).ensemble.members
    assert [member.weight for member in members] == [float(node.weight) for node in cfg.model.members.values()]


def test_candidates_predict_training_and_validation_rows_alone(home: Path) -> None:
    cfg = searched(home)
    table = tables.load(cfg.data)
    parts = split(table, cfg.split)
    for run_ in runs(home, "candidate"):
        with store(home).artifacts.file(run_.info.run_id, "out_of_fold.npz") as path:
            arrays = read_arrays(path)
        np.testing.assert_array_equal(arrays["rows"], np.union1d(parts.train, parts.valid))
        error = arrays["predicted"] - table.target[arrays["rows"]]
        assert np.sqrt(np.mean(np.square(error))) == pytest.approx(run_.data.metrics["rmse"])


def test_members_have_the_boosting_rounds_that_early_stopping_chose(home: Path) -> None:
    (member,) = searched(home, names=("boosted",)).model.members.values()
    rounds = [run_.data.metrics["rounds.xgboost"] for run_ in runs(home, "candidate")]
    assert member.model.early_stopping is None and member.model.estimator.n_estimators in rounds


def test_variations_of_candidates_are_drawn_within_their_space(home: Path) -> None:
    searched(home, "candidates.boosted.space={max_depth: [2, 3], learning_rate: [0.2, 0.4]}", "max_candidates=4")
    names = [run_.info.run_name for run_ in runs(home, "candidate")]
    assert [name.split()[0] for name in names] == ["boosted", "boosted", "ridge", "boosted_1", "boosted_2"]
    drawn = [run_.data.params for run_ in runs(home, "candidate")[3:]]
    rates = {float(params["model.estimator.learning_rate"]) for params in drawn}
    assert len(rates) == 2 and all(0.2 <= rate <= 0.4 for rate in rates)
    assert {params["model.estimator.max_depth"] for params in drawn} <= {"2", "3"}


def test_the_first_candidate_decides_the_transform_and_a_set_one_is_kept(home: Path) -> None:
    chosen = searched(home).target.transform
    by_transform = {run_.data.tags["housing.target_transform"]: run_.data.metrics["rmse"] for run_ in runs(home, "candidate")[:2]}
    assert chosen == min(by_transform, key=lambda transform: by_transform[transform]) and len(by_transform) == 2
    assert searched(home, "target.transform=log").target.transform == "log"


def test_the_logarithm_is_tried_for_a_skewed_target_alone(home: Path) -> None:
    searched(home, "target.min_skewness=50", "max_candidates=1", names=("boosted",))
    assert [run_.data.tags["housing.target_transform"] for run_ in runs(home, "candidate")] == ["none"]


MEAN = "candidates.ridge.model.estimator.ridge.alpha=1000000000"  # a ridge regression that predicts the mean


def test_a_candidate_that_is_much_worse_than_the_best_one_is_stopped(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cfg = searched(home, MEAN, "max_relative_rmse=1.1", "target.transform=none")
    assert list(cfg.model.members) == ["boosted"]
    assert re.search(r"ridge: Stopped: its RMSE after [12] of 2 folds is \d+\.\d\d times that of boosted", capfd.readouterr().out)
    assert [run_.info.status for run_ in runs(home, "candidate")] == ["FINISHED", "KILLED"]


def test_a_member_has_a_limited_error_also_if_an_earlier_search_had_no_limit(home: Path) -> None:
    searched(home, MEAN, "target.transform=none")
    cfg = searched(home, MEAN, "target.transform=none", "max_relative_rmse=1.1")
    assert list(cfg.model.members) == ["boosted"] and len(runs(home, "candidate")) == 2


def test_the_cost_of_a_candidate_is_measured_when_it_is_selected(home: Path) -> None:
    overrides = (MEAN, "target.transform=none")
    assert list(searched(home, *overrides).model.members) == ["boosted"]
    assert ["model_bytes" in run_.data.metrics for run_ in runs(home, "candidate")] == [True, False]
    assert list(searched(home, *overrides, names=("ridge",)).model.members) == ["ridge"]  # it is not fitted again on all folds
    assert ["model_bytes" in run_.data.metrics for run_ in runs(home, "candidate")] == [True, True]


@pytest.mark.long
def test_a_killed_search_goes_on_with_the_finished_candidates(home: Path) -> None:
    slow = ("candidates.extra_trees.model.estimator.n_estimators=20000", "candidates.extra_trees.model.estimator.n_jobs=1")
    arguments = ["housing.train", SEARCH_PATH, *AUTO, *only("boosted", "extra_trees")]
    environ = {**os.environ, "HOUSING_HOME": str(home)}
    with subprocess.Popen([sys.executable, "-m", *arguments, FEW_ROUNDS, *slow], env=environ) as process:
        wait_for(lambda: len(runs(home, "candidate")) == 3, "the slow candidate runs")
        os.kill(process.pid, signal.SIGKILL)
    before = {run_.info.run_id: run_.info.status for run_ in runs(home, "candidate")}
    assert sorted(before.values()) == ["FINISHED", "FINISHED", "RUNNING"]
    searched(home, "max_candidates=1", names=("boosted",))
    after = {run_.info.run_id: run_.info.status for run_ in runs(home, "candidate")}
    assert after.keys() == before.keys() and sorted(after.values()) == ["FINISHED", "FINISHED", "KILLED"]


def test_a_second_search_fits_nothing_again_and_finds_the_same_ensemble(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first, second = searched(home), searched(home)
    assert first.model == second.model and len(runs(home, "candidate")) == 3
    assert capfd.readouterr().out.count("reused") == 2
    searched(home, "folds=3")  # other predictions
    assert len(runs(home, "candidate")) == 6


def test_a_library_that_is_not_installed_is_announced(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cfg = searched(
        home, "candidates.extra_trees.model.estimator._target_=absent_library.Regressor", names=("ridge", "extra_trees")
    )
    assert list(cfg.model.members) == ["ridge"]
    assert "Without candidates of absent_library, which are not installed" in capfd.readouterr().out
    assert runs(home, "search")[0].data.tags["housing.missing_libraries"] == "absent_library"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("minutes=0", r"minutes must be a number above 0 \(got 0\)"),
        (
            "candidates.boosted.space={max_depth: [5, 2]}",
            r"candidates.boosted.space.max_depth must be the lowest and the highest",
        ),
        ("folds=1", r"folds must be a whole number, at least 2 \(got 1\)"),
        ("minutes=0.000001", "No candidate finished within minutes=1e-06. Use more minutes, or max_rows=N. boosted: Not started"),
        (
            "max_row_microseconds=0.1",
            r"No candidate is within max_row_microseconds=0.1 .* the fastest of 2 needs \d+ microseconds",
        ),
    ],
)
def test_a_search_without_a_result_says_what_to_change(home: Path, overrides: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        searched(home, overrides)


def test_candidates_that_do_not_suit_the_table_are_named(home: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs a candidate for \d+ training and validation rows .* leaves out ridge[.]"):
        searched(home, "+candidates.ridge.max_rows=10", names=("ridge",))


@pytest.mark.long
def test_candidates_whose_final_fits_take_too_long_end_the_search_with_a_message(home: Path) -> None:
    ridge = "candidates.ridge.model.estimator.ridge"
    slow = [f"{ridge}._target_={SlowRidge.__module__}.{SlowRidge.__qualname__}", f"+{ridge}.seconds=2"]
    with pytest.raises(ConfigError, match=r"No candidate is within minutes=0\.1: the final fits may take 3 s, and those of"):
        searched(home, "minutes=0.1", *slow, names=("ridge",))


def test_a_fit_ends_with_the_time(home: Path) -> None:
    boosted = "candidates.boosted.model"
    endless = (f"{boosted}.early_stopping=null", f"{boosted}.estimator.n_estimators=100000000", "target.transform=none")
    with pytest.raises(ConfigError, match="No candidate finished .* boosted: Stopped: the time ended after 0 of 2 folds"):
        searched(home, *endless, "minutes=0.02", names=("boosted",))
    (stopped,) = runs(home, "candidate")
    assert stopped.info.status == "KILLED"


def test_a_candidate_that_fails_does_not_end_the_search(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cfg = searched(home, "+candidates.boosted.model.estimator.objective=no_objective")
    assert list(cfg.model.members) == ["ridge"]
    assert "boosted: model.estimator of xgboost cannot be fitted" in capfd.readouterr().out
    assert {run_.info.status for run_ in runs(home, "candidate")} == {"FAILED", "FINISHED"}


@pytest.mark.long
def test_one_command_trains_the_ensemble_and_a_sweep_refuses_it(home: Path) -> None:
    arguments = ("housing.train", SEARCH_PATH, *AUTO, *only("ridge"))
    result = command(home, *arguments)
    assert result.code == 0, result.err
    assert "auto on features none, data rentals: fitted" in result.out
    assert "experiment=auto is a search of its own" in user_error(command(home, *arguments, "-m"))
