"""The clean-up: old runs and folders go, what a version, a decision or the policy needs stays, and a dry run removes nothing."""

import math
import os
import time
from pathlib import Path

import pytest

from housing.core.errors import ConfigError, StoreError
from housing.operations.cleaning import clean
from housing.runs.outcome import Outcome
from housing.tracking import store as tracking
from housing.tracking import tags
from housing.tracking.store import Store
from tests.support.tables import config

DAY = 24 * 3600


def log_run(store: Store, days: float, rmse: float | None, experiment: str = "rentals") -> str:
    """Log a run that started some days ago. Without a score it failed."""
    api = store.client.api
    started = int(1000 * (time.time() - days * DAY))
    all_tags = {tags.RUN_TYPE: "run", tags.TAG_FORMAT: tags.FORMAT}
    run_id = str(api.create_run(store.client.experiment_id(experiment), start_time=started, tags=all_tags).info.run_id)
    if rmse is not None:
        api.log_metric(run_id, "rmse", rmse)
    api.set_terminated(run_id, "FAILED" if rmse is None else "FINISHED")
    return run_id


def log_bundle(store: Store, run_id: str) -> str:
    """Log a bundle without files for a run, and return MLflow's id of it."""
    model = store.client.api.create_logged_model(store.client.experiment_id("rentals"), "bundle", source_run_id=run_id)
    store.client.api.set_tag(run_id, tags.MODEL_ID, model.model_id)
    return str(model.model_id)


def write_folder(folder: Path, run_id: str | None = None, days: float = 100) -> Path:
    """Write a folder of some days ago: the one of a run, or one with a note of the user."""
    folder.mkdir(parents=True)
    if run_id is None:
        (folder / "note.txt").write_text("mine", encoding="utf-8")
    else:
        Outcome([], "FINISHED", run_id).write(folder)
    for path in (*folder.iterdir(), folder):
        os.utime(path, (time.time() - days * DAY,) * 2)
    return folder


@pytest.mark.parametrize("exists", [True, False])
def test_a_home_without_a_store_is_refused_and_nothing_is_created(
    exists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOUSING_HOME", str(tmp_path if exists else tmp_path / "none"))
    with pytest.raises(StoreError, match=r"There is no MLflow store at .*mlflow\.db.* train a model first: python"):
        clean(config("clean"))
    assert not list(tmp_path.iterdir())


def test_old_runs_and_folders_go_and_what_is_needed_stays(served_home: Path) -> None:
    overrides = ("data=rentals", "keep_best=1", "keep_days=90")
    store = tracking.connect(config("clean", *overrides).mlflow)
    versioned, judged = log_run(store, 100, 1e6), log_run(store, 100, 1e6)  # the worst runs of all
    kept_bundle = log_bundle(store, versioned)
    store.client.api.create_model_version("housing-rentals", f"models:/{kept_bundle}")
    with store.runs.start("rentals-decisions", "test", {tags.RUN_TYPE: "decision", tags.CHALLENGER: judged}):
        pass
    best, worse, failed, young = (log_run(store, *run) for run in ((100, 1.0), (100, 2.0), (100, None), (80, math.nan)))
    bundle = log_bundle(store, worse)
    runs, sweep = served_home / "outputs" / "runs", served_home / "outputs" / "sweeps" / "swept"
    gone = {write_folder(runs / "old", worse), write_folder(sweep / "1", failed)}
    left = [write_folder(runs / "my notes"), write_folder(sweep.parent / "important")]
    left += [write_folder(runs / "other", log_run(store, 100, 1.0, "other")), write_folder(runs / "unknown", "0" * 32)]
    kept = [write_folder(runs / "best", best), write_folder(sweep / "0", judged), write_folder(runs / "reused", worse, days=0)]
    (sweep / "leaderboard.csv").write_text("", encoding="utf-8")

    def remaining() -> set[str]:
        return {record.id for record in store.runs.find_latest("rentals", {tags.RUN_TYPE: "run"}, 100)}

    def bundles() -> set[str]:
        return {model.model_id for model in store.client.api.search_logged_models([store.client.experiment_id("rentals")])}

    everything = remaining()
    cleaned = clean(config("clean", *overrides))
    assert (set(cleaned.runs), set(cleaned.folders), cleaned.is_dry_run) == ({worse, failed}, gone, True)
    assert cleaned.left_folders == len(left) and cleaned.freed > 0
    assert remaining() == everything and all(folder.is_dir() for folder in gone) and bundle in bundles()
    with pytest.raises(ConfigError, match="metric=nope: no run of experiment rentals has this metric.* Use one of .*rmse"):
        clean(config("clean", *overrides, "dry_run=false", "metric=nope"))
    assert remaining() == everything
    cleaned = clean(config("clean", *overrides, "dry_run=false"))
    assert (set(cleaned.runs), set(cleaned.folders)) == ({worse, failed}, gone)
    assert {versioned, judged, best, young} <= remaining() == everything - {worse, failed}
    assert not any(folder.exists() for folder in gone) and all(folder.is_dir() for folder in (*left, *kept))
    assert (sweep / "leaderboard.csv").is_file()
    assert kept_bundle in bundles() and bundle not in bundles()
    store.client.api.restore_run(worse)
    assert tags.MODEL_ID not in store.runs.get(worse).tags  # so that promotion fits it again
    store.client.api.delete_run(worse)
    cleaned = clean(config("clean", "data=rentals", "keep_best=0", "keep_days=1"))
    assert set(cleaned.runs) == {best, young}
