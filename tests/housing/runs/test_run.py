"""One run: what it logs to MLflow, when it is reused, how it fails."""

import json
import re
from pathlib import Path

import mlflow
import numpy as np
import pytest

from housing.core.errors import ConfigError, HousingError, TableError
from housing.data.split import split
from housing.data.table import load
from housing.runs.outcome import Outcome
from housing.tracking import store as tracking_store
from housing.tracking import tags as tracking_tags
from housing.tracking.store import Store
from tests.support.tables import config, rentals_frame, train

TREE = ("model=decision_tree", "figures=false")


@pytest.fixture
def store(home: Path) -> Store:
    """Return the store of the test's home."""
    return tracking_store.Store(f"sqlite:///{home}/mlflow.db", artifact_root=str(home / "mlartifacts"), ui="")


def failed_runs(store: Store) -> list[str]:
    """Return the ids of the failed runs of the rentals."""
    runs = store.client.api.search_runs([store.client.experiment_id("rentals")], "attributes.status = 'FAILED'")
    return [run.info.run_id for run in runs]


def test_a_run_logs_params_metrics_tags_and_artifacts(home: Path, store: Store) -> None:
    outcome = train(home, "model=xgboost", "model.estimator.n_estimators=30", "+tags.why=test")
    run = store.client.api.get_run(str(outcome.run_id))
    assert run.info.status == "FINISHED"
    assert run.data.params["model.estimator.n_estimators"] == "30"
    assert run.data.params["split.salt"] == "housing"
    times = {"fit_seconds", "refit_seconds", "rows_per_second", "latency_us"}
    system = {f"system/{name}" for name in ("wall_seconds", "cpu_seconds", "peak_memory_megabytes")}
    assert set(run.data.metrics) == {"rmse", "mae", "r2", "model_bytes", *times, *system}
    assert all(np.isfinite(value) and value != 0 for value in run.data.metrics.values())
    names = (
        "data",
        "split",
        "dirty",
        "command",
        "host",
        "process",
        "heartbeat",
        "numpy",
        "scikit-learn",
        "overrides",
        "tag_format",
        "why",
    )
    assert {f"housing.{name}" for name in names} <= set(run.data.tags)
    assert any(name.startswith("housing.run_key.") for name in run.data.tags)
    assert len(run.data.tags["mlflow.source.git.commit"]) in (40, len("unknown"))
    artifacts = {
        item.path for folder in ("config", "figures") for item in store.client.api.list_artifacts(run.info.run_id, folder)
    }
    assert artifacts - {"config/uncommitted.diff"} == {  # which a clone with changes has
        "config/config.yaml",
        "config/overrides.yaml",
        "figures/predicted.png",
        "figures/residuals.png",
        "figures/importance.png",
    }
    assert store.artifacts.read_config(run.info.run_id).model.estimator.n_estimators == 30


def test_the_bundle_is_an_mlflow_model_that_predicts_data_frames(home: Path, store: Store) -> None:
    outcome = train(home, *TREE)
    tags = store.runs.get(str(outcome.run_id)).tags
    model = mlflow.pyfunc.load_model(f"models:/{tags[tracking_tags.MODEL_ID]}")
    frame = rentals_frame(5, seed=1).drop(columns="rent").astype({"rooms": float})
    assert model.predict(frame).shape == (5,)
    assert [column["name"] for column in model.metadata.signature.inputs.to_dict()] == list(frame.columns)


def test_the_card_of_the_bundle_names_the_run(home: Path, store: Store) -> None:
    outcome = train(home, *TREE)
    with store.artifacts.bundle(f"models:/{store.runs.get(str(outcome.run_id)).tags[tracking_tags.MODEL_ID]}") as folder:
        card = json.loads((folder / "card.json").read_text())
    assert card["run_id"] == outcome.run_id
    assert card["metrics"]["rmse"] == pytest.approx(outcome.metrics["rmse"], rel=1e-5)
    assert sum(card["rows"].values()) == card["data"]["rows"] == 600


def test_test_rows_do_not_change_the_validation_metrics(home: Path) -> None:
    before = train(home, *TREE)
    cfg = config("train", "data=rentals")
    parts = split(load(cfg.data), cfg.split)
    frame = rentals_frame()
    frame.loc[parts.test, "rent"] = 0.0  # wrong targets for the test rows
    frame.to_csv(home / "data" / "rentals.csv", index=False)
    after = train(home, *TREE)
    assert not after.reused
    for name in ("rmse", "mae", "r2"):
        assert after.metrics[name] == before.metrics[name]


def test_an_equal_run_is_reused_unless_force_rerun_is_set(home: Path) -> None:
    first = train(home, *TREE)
    repeated = train(home, *TREE, "n_threads=1", "+tags.why=again")
    forced = train(home, *TREE, "force_rerun=true")
    assert (first.reused, repeated.reused, forced.reused) == (False, True, False)
    assert repeated.run_id == first.run_id != forced.run_id
    assert repeated.metrics == first.metrics and "system/wall_seconds" not in first.metrics
    assert forced.metrics["rmse"] == first.metrics["rmse"]


@pytest.mark.parametrize(
    "change", ["seed=1", "model.estimator.max_depth=3", "split.salt=x", "max_rows=500", "data.columns.area.max=400"]
)
def test_a_change_of_the_model_is_another_run(home: Path, change: str) -> None:
    first = train(home, *TREE)
    assert not train(home, *TREE, change).reused
    assert train(home, *TREE).run_id == first.run_id


def test_changed_data_is_another_run(home: Path) -> None:
    train(home, *TREE)
    rentals_frame(601).to_csv(home / "data" / "rentals.csv", index=False)
    assert not train(home, *TREE).reused


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("data.path=nowhere.csv", HousingError, "nowhere.csv"),
        ("data.columns.area.max=30", TableError, "30"),
        ("model.estimator.max_depth=-1", ConfigError, "The 'max_depth' parameter"),
        ("metric=accuracy", ConfigError, "metric.*accuracy"),
        ("+features.blocks.magic={}", ConfigError, "magic"),
    ],
)
def test_an_error_fails_the_run_with_its_traceback(
    home: Path, store: Store, override: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(home, *TREE, override)
    (failed,) = failed_runs(store)
    trace = store.artifacts.read_text(failed, "traceback.txt")
    assert trace.startswith("Traceback") and re.search(message, trace)
    outcome: Outcome = Outcome(**json.loads(next(home.glob("outputs/*/outcome.json")).read_text()))
    assert outcome.status == "FAILED" and outcome.run_id in (None, failed)
    assert re.search(message, outcome.error)


def test_a_failed_run_is_not_reused(home: Path, store: Store) -> None:
    table = home / "data" / "rentals.csv"
    table.rename(home / "away.csv")
    with pytest.raises(HousingError):
        train(home, *TREE)
    (home / "away.csv").rename(table)
    assert not train(home, *TREE).reused
    assert len(failed_runs(store)) == 1
