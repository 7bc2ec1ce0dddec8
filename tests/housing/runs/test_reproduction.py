"""Reproduction of a run: equal to the last digit, or a list of the differences."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from housing.core.errors import HousingError, StoreError
from housing.runs.past_run import PastRun
from housing.tracking import store as tracking_store
from housing.tracking import tags
from housing.tracking.store import Store
from tests.support.commands import command, dvc, fresh_command, git
from tests.support.tables import TABLES, config, rentals_frame, train

TRAIN = ("housing.train", f"--config-dir={TABLES}", "data=rentals", "features=none", "figures=false")


@pytest.fixture
def store(home: Path) -> Store:
    """Return the store of the test's home."""
    assert home.is_dir()
    return tracking_store.connect(config("train", "data=rentals").mlflow)


def trained(home: Path, store: Store, *overrides: str) -> str:
    """Train in a forked process and return the run's id. A fresh process has another hash seed."""
    result = command(home, *TRAIN, *overrides)
    assert result.code == 0, result.err
    (run, *_) = store.client.api.search_runs([store.client.experiment_id("rentals")], order_by=["attributes.start_time DESC"])
    return str(run.info.run_id)


@pytest.mark.parametrize("evaluation", ["holdout", "kfold"])
def test_a_run_is_the_same_to_the_last_digit(home: Path, store: Store, evaluation: str) -> None:
    model = ("model=xgboost", "model.estimator.n_estimators=20", "model.estimator.subsample=0.5", "n_threads=1")
    run_id = trained(home, store, *model, f"evaluation={evaluation}")
    repeated = fresh_command(home, "housing.reproduce", f"run_id={run_id}")
    assert repeated.code == 0, repeated.out + repeated.err
    assert "same to the last digit" in repeated.out and "differ" not in repeated.out
    assert (
        len(store.client.api.search_runs([store.client.experiment_id("rentals")])) == 1
    )  # the repetition is logged to another experiment


@pytest.mark.long
def test_differences_are_listed(home: Path, store: Store) -> None:
    run_id = trained(home, store, "model=decision_tree")
    store.client.api.set_tag(run_id, "housing.numpy", "1.0.0")
    store.client.api.set_tag(run_id, "mlflow.source.git.commit", "0" * 40)
    repeated = command(home, "housing.reproduce", f"run_id={run_id}")
    assert repeated.code == 0  # the scores are equal
    assert repeated.out.splitlines()[-1] == "These values differ: commit, numpy"
    store.client.api.log_metric(run_id, "rmse", 12.5)
    other = command(home, "housing.reproduce", f"run_id={run_id}")
    assert other.code == 1 and other.out.splitlines()[-1] == "These values differ: commit, numpy, rmse"
    assert "12.5" in other.out


@pytest.mark.long
def test_the_table_is_located_by_its_fingerprint(home: Path, store: Store) -> None:
    run_id = trained(home, store, "model=decision_tree")
    expected = store.runs.get(run_id).tags[tags.DATA]
    table = home / "data" / "rentals.csv"
    table.rename(home / "data" / "older.csv")
    rentals_frame(seed=1).to_csv(table, index=False)
    assert command(home, "housing.reproduce", f"run_id={run_id}").code == 0
    (home / "data" / "older.csv").unlink()
    gone = command(home, "housing.reproduce", f"run_id={run_id}")
    assert gone.code == 1 and "Traceback" not in gone.err
    assert f"table of run {run_id} was not found" in gone.err and expected in gone.err and f"\n  {table}: " in gone.err


@pytest.mark.long
def test_the_error_about_a_missing_table_has_the_dvc_commands_that_restore_it(versioned: Path) -> None:
    run_id = str(train(versioned, "model=linear", "figures=false").run_id)
    store = tracking_store.connect(config("train", "data=rentals").mlflow)
    store.client.api.set_tag(run_id, "mlflow.source.git.commit", git(versioned, "rev-parse", "HEAD").strip())
    rentals_frame(700).to_csv(versioned / "data" / "rentals.csv", index=False)
    dvc(versioned, "add", "--quiet", "data/rentals.csv")
    git(versioned, "commit", "--quiet", "--all", "--message=more")
    past_run = PastRun.read(store, run_id)
    with pytest.raises(HousingError, match="under DVC. To restore its version at the run's commit") as caught:
        past_run.locate_table(versioned / "data" / "rentals.csv", versioned / "data")
    restore, go_back = (line.strip() for line in str(caught.value).splitlines() if line.startswith("  git"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", "-c", restore], cwd=versioned, env={**os.environ, "PATH": path}, check=True)
    assert past_run.locate_table(versioned / "data" / "rentals.csv", versioned / "data").name == "rentals.csv"
    subprocess.run(["bash", "-c", go_back], cwd=versioned, env={**os.environ, "PATH": path}, check=True)
    assert git(versioned, "status", "--porcelain") == ""


def test_an_unknown_run_is_an_error(home: Path, store: Store) -> None:
    assert store.client.experiment_id("rentals")
    result = command(home, "housing.reproduce", f"run_id={'0' * 32}")
    assert result.code == 1 and f"has no run {'0' * 32}." in result.err
    missing = command(home, "housing.reproduce")
    assert missing.code == 1 and "run_id" in missing.err and "Traceback" not in missing.err


def test_a_run_whose_tags_have_another_format_is_refused_in_one_sentence(home: Path, store: Store) -> None:
    run_id = str(train(home, "model=linear", "figures=false").run_id)
    store.client.api.set_tag(run_id, tags.TAG_FORMAT, "1")
    with pytest.raises(StoreError, match=rf"Run {run_id} has tags of format 1.*expected format {tags.FORMAT}.*housing\.train"):
        PastRun.read(store, run_id)
    store.client.api.delete_tag(run_id, tags.TAG_FORMAT)  # as version 0.1 left it
    store.client.api.delete_tag(run_id, tags.RUN_TYPE)
    store.client.api.set_tag(run_id, tags.FORMER_RUN_TYPE, "run")
    refused = command(home, "housing.reproduce", f"run_id={run_id}")
    assert refused.code == 1 and "format 1" in refused.err and "Traceback" not in refused.err
