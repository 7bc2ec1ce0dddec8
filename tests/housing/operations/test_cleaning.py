"""The clean-up: old runs and folders go, what a version, a decision or the policy needs stays, and a dry run removes nothing."""

import os
import time
from pathlib import Path

from housing.operations.cleaning import clean
from housing.tracking import store as tracking
from housing.tracking import tags
from housing.tracking.store import Store
from tests.support.tables import config

DAY = 24 * 3600


def log_run(store: Store, days: float, rmse: float | None) -> str:
    """Log a run that started some days ago. Without a score it failed."""
    api = store.client.api
    started = int(1000 * (time.time() - days * DAY))
    all_tags = {tags.RUN_TYPE: "run", tags.TAG_FORMAT: tags.FORMAT}
    run_id = str(api.create_run(store.client.experiment_id("rentals"), start_time=started, tags=all_tags).info.run_id)
    if rmse is not None:
        api.log_metric(run_id, "rmse", rmse)
    api.set_terminated(run_id, "FAILED" if rmse is None else "FINISHED")
    return run_id


def log_bundle(store: Store, run_id: str) -> str:
    """Log a bundle without files for a run, and return MLflow's id of it."""
    model = store.client.api.create_logged_model(store.client.experiment_id("rentals"), "bundle", source_run_id=run_id)
    store.client.api.set_tag(run_id, tags.MODEL_ID, model.model_id)
    return str(model.model_id)


def test_old_runs_and_folders_go_and_what_is_needed_stays(served_home: Path) -> None:
    overrides = ("data=rentals", "keep_best=1", "keep_days=90")
    store = tracking.connect(config("clean", *overrides).mlflow)
    versioned, judged = log_run(store, 100, 1e6), log_run(store, 100, 1e6)  # the worst runs of all
    kept_bundle = log_bundle(store, versioned)
    store.client.api.create_model_version("housing-rentals", f"models:/{kept_bundle}")
    with store.runs.start("rentals-decisions", "test", {tags.RUN_TYPE: "decision", tags.CHALLENGER: judged}):
        pass
    best, worse, failed, young = (log_run(store, *run) for run in ((100, 1.0), (100, 2.0), (100, None), (80, 3.0)))
    bundle = log_bundle(store, worse)
    old, new = (served_home / "outputs" / "runs" / name for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "outcome.json").write_text("{}", encoding="utf-8")
    for path in (old / "outcome.json", old, new):  # a file in `new` is young
        os.utime(path, (time.time() - 100 * DAY,) * 2)

    def remaining() -> set[str]:
        return {record.id for record in store.runs.find_latest("rentals", {tags.RUN_TYPE: "run"}, 100)}

    def bundles() -> set[str]:
        return {model.model_id for model in store.client.api.search_logged_models([store.client.experiment_id("rentals")])}

    everything = remaining()
    cleaned = clean(config("clean", *overrides))
    assert (set(cleaned.runs), cleaned.folders, cleaned.is_dry_run) == ({worse, failed}, [old], True)
    assert remaining() == everything and old.is_dir() and bundle in bundles()
    cleaned = clean(config("clean", *overrides, "dry_run=false"))
    assert (set(cleaned.runs), cleaned.freed) == ({worse, failed}, 2)
    assert {versioned, judged, best, young} <= remaining() == everything - {worse, failed}
    assert new.is_dir() and not old.exists()
    assert kept_bundle in bundles() and bundle not in bundles()
    store.client.api.restore_run(worse)
    assert tags.MODEL_ID not in store.runs.get(worse).tags  # so that promotion fits it again
    store.client.api.delete_run(worse)
    cleaned = clean(config("clean", "data=rentals", "keep_best=0", "keep_days=1"))
    assert set(cleaned.runs) == {best, young}
