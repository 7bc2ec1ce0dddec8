"""The gate: nothing reaches an alias that was not proven on the test rows, and every decision is kept."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from conftest import TABLES, command, config, rentals_frame, train
from housing import tracking
from housing.data import load
from housing.errors import ConfigError, StoreError
from housing.findings import Honest
from housing.predict import predict
from housing.promote import promote
from housing.records import Decision
from housing.scores import score
from housing.split import split
from housing.tracking import Store

WORSE, BETTER = ("model=decision_tree", "figures=false", "model.estimator.max_depth=2"), ("model=linear", "figures=false")
MODEL = "housing-rentals"


@pytest.fixture
def store(home: Path) -> Store:
    """The store of the test's own home."""
    return tracking.Store(f"sqlite:///{home}/mlflow.db", artifacts=str(home / "mlartifacts"), ui="")


def gate(*overrides: str) -> Decision:
    """Promote as the command does."""
    return promote(config("promote", "data=rentals", *overrides))


def bundle_files(store: Store, run_id: str) -> Path:
    """Where the bundle of a run lies on this machine."""
    model = store.client.get_logged_model(store.get(run_id).tags[tracking.MODEL_ID])
    return Path(model.artifact_location.removeprefix("file://")) / "data" / "bundle"


def test_the_first_model_has_to_beat_the_training_mean(home: Path, store: Store) -> None:
    run = train(home, *WORSE)
    decision = gate()
    assert (decision.verdict, decision.champion, decision.version) == ("PROMOTE", "the training mean", "1")
    cfg = config("train", "data=rentals")
    table = load(cfg.data)
    parts = split(table, cfg.split)
    mean = np.full(len(parts.test), table.target[parts.train].mean())
    assert decision.champion_metrics == pytest.approx(score(mean, table.target[parts.test]))
    model = mlflow.pyfunc.load_model(f"models:/{MODEL}@staging")
    frame = rentals_frame().drop(columns="rent").astype({"rooms": float}).iloc[parts.test]
    assert decision.challenger_metrics == pytest.approx(score(model.predict(frame), table.target[parts.test]))
    assert store.client.get_model_version(MODEL, "1").run_id == run.run_id


def test_a_better_run_replaces_the_champion_and_a_worse_one_does_not(home: Path, store: Store) -> None:
    worse = train(home, *WORSE)
    assert gate().version == "1"
    better = train(home, *BETTER)
    decision = gate()
    assert (decision.run_id, decision.champion, decision.verdict) == (better.run_id, "version 1", "PROMOTE")
    assert decision.challenger_metrics["rmse"] < decision.champion_metrics["rmse"]
    back = gate(f"run_id={worse.run_id}")
    assert (back.verdict, back.version) == ("REJECT", "2")
    assert back.reasons[-1].startswith("worse: test rmse")
    assert store.version_at(MODEL, "staging") == "2"
    assert gate(f"run_id={worse.run_id}", "margin=1000").verdict == "PROMOTE"
    assert store.version_at(MODEL, "staging") == "3"


def test_the_run_in_service_is_held(home: Path, store: Store) -> None:
    train(home, *BETTER)
    gate()
    decision = gate()
    assert (decision.verdict, decision.version) == ("HOLD", "1")
    assert decision.reasons == ["this run is version 1 at staging already"]
    assert len(store.client.search_model_versions(f"name = '{MODEL}'")) == 1


def test_every_decision_is_a_run_with_its_figures(home: Path, store: Store) -> None:
    run = train(home, *BETTER)
    gate()
    gate()
    records = store.client.search_runs([store.experiment("rentals-decisions")], order_by=["attributes.start_time ASC"])
    assert [record.data.tags["housing.verdict"] for record in records] == ["PROMOTE", "HOLD"]
    kept = json.loads(store.text(records[0].info.run_id, "decision.json"))
    assert kept["run_id"] == records[0].data.tags["housing.challenger"] == run.run_id
    assert kept["challenger_metrics"]["rmse"] == records[0].data.metrics["challenger_rmse"]


def test_an_honest_evaluation_is_recorded_and_changes_no_verdict(home: Path, store: Store) -> None:
    train(home, *BETTER)
    quick, honest = gate(), gate("alias=production")
    assert quick.honest is None and honest.honest is not None
    assert (quick.verdict, quick.challenger_metrics) == (honest.verdict, honest.challenger_metrics)
    newest, older = store.client.search_runs([store.experiment("rentals-decisions")], order_by=["attributes.start_time DESC"])
    kept = Honest.from_dict(json.loads(store.text(newest.info.run_id, "honest.json")))
    assert kept == honest.honest and kept.scores == honest.challenger_metrics
    assert kept.metrics().items() <= newest.data.metrics.items()
    assert newest.data.tags["housing.evaluated"] == "honest" and "housing.evaluated" not in older.data.tags
    assert [item.path for item in store.client.list_artifacts(older.info.run_id)] == ["decision.json"]
    assert gate("alias=production", "evaluate=quick").honest is None


def test_an_honest_evaluation_is_printed(home: Path) -> None:
    train(home, *BETTER)
    ended = command(home, "housing.promote", f"--config-dir={TABLES}", "data=rentals", "evaluate=honest")
    assert ended.code == 0, ended.err
    assert "honest evaluation" in ended.out and "95 % of resamples" in ended.out and "intervals at 90 % cover" in ended.out
    assert "left out: grouped and blocks splits: table rentals has no coordinates" in ended.out


def spoil(path: Path) -> None:
    """Add a byte to a file."""
    path.write_bytes(path.read_bytes() + b" ")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda bundle: spoil(bundle / "members/0/model.onnx"), "model.onnx does not have the sum that was written"),
        (lambda bundle: (bundle / "card.json").unlink(), "card.json is missing"),
        (lambda bundle: (bundle / "run_me.py").write_text("print(1)"), "run_me.py is not part of a bundle"),
    ],
)
def test_a_damaged_bundle_is_rejected_with_the_reason_and_the_alias_stays(
    home: Path, store: Store, damage: Callable[[Path], object], reason: str
) -> None:
    train(home, *WORSE)
    gate()
    better = train(home, *BETTER)
    damage(bundle_files(store, str(better.run_id)))
    decision = gate()
    assert (decision.verdict, decision.run_id, decision.version) == ("REJECT", better.run_id, "1")
    assert reason in decision.reasons[0]
    assert store.version_at(MODEL, "staging") == "1"


def test_a_champion_that_cannot_be_read_blocks_nothing_and_is_told(home: Path, store: Store) -> None:
    run = train(home, *WORSE)
    gate()
    spoil(bundle_files(store, str(run.run_id)) / "card.json")
    train(home, *BETTER)
    decision = gate()
    assert (decision.verdict, decision.champion) == ("PROMOTE", "the training mean")
    assert "version 1 at staging is damaged" in decision.reasons[0]


def test_a_run_without_its_bundle_is_fitted_again_and_that_is_told(home: Path, store: Store) -> None:
    run = train(home, *BETTER)
    store.client.delete_tag(str(run.run_id), tracking.MODEL_ID)  # as log_model=best leaves all but the best
    decision = gate()
    assert decision.verdict == "PROMOTE"
    assert decision.reasons[0] == "the run kept no bundle: it was fitted again from its config"
    assert store.get(str(run.run_id)).tags["housing.refitted"] == "true"
    assert mlflow.pyfunc.load_model(f"models:/{MODEL}@staging")


def test_the_best_run_is_one_of_this_table_and_split(home: Path, store: Store) -> None:
    elsewhere = train(home, *BETTER, "split=random")
    with pytest.raises(StoreError, match="no finished run on this table and split with evaluation=holdout; train first"):
        gate()
    with pytest.raises(StoreError, match=f"run {elsewhere.run_id} was fitted on another split"):
        gate(f"run_id={elsewhere.run_id}")
    assert gate("split=random").verdict == "PROMOTE"
    here = train(home, *WORSE)
    decision = gate()
    assert decision.run_id == here.run_id
    assert "the champion was fitted on other data or another split: it may know some of the test rows" in decision.reasons
    assert store.version_at(MODEL, "staging") == "1"


def test_a_champion_of_other_columns_is_not_compared(home: Path, store: Store) -> None:
    train(home, *WORSE)
    gate()
    change = "+data.columns.area.nullable=true"
    wider = train(home, *BETTER, change)
    with pytest.raises(StoreError, match="version 1 has other columns than table rentals"):
        gate(f"run_id={wider.run_id}", change)
    assert store.version_at(MODEL, "staging") == "1"
    described = train(home, *BETTER, "data.columns.area.description=other words")
    assert gate(f"run_id={described.run_id}").verdict == "PROMOTE"


def test_a_champion_that_is_out_of_reach_ends_the_promotion(home: Path, store: Store) -> None:
    run = train(home, *WORSE)
    gate()
    train(home, *BETTER)
    shutil.rmtree(bundle_files(store, str(run.run_id)).parents[1])  # as where the artefact store is away
    with pytest.raises(StoreError, match="its artefacts are not there"):
        gate()
    assert store.version_at(MODEL, "staging") == "1"


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["run_id=nope"], StoreError, "knows no run nope"),
        (["sweep=nope"], StoreError, "cannot give runs:/nope/sweep.json"),
        (["margin=abc"], ConfigError, "margin is 'abc'; allowed: a finite number"),
        (["margin=inf"], ConfigError, "margin is inf; allowed: a finite number"),
        (["alias='a b'"], ConfigError, "alias is 'a b'; allowed: letters, digits"),
        (["alias=latest"], ConfigError, "alias is 'latest'; allowed: .*neither latest nor v and a number"),
        (["metric=r2"], ConfigError, "metric is 'r2'; allowed: rmse, mae"),
        (["run_id=a", "sweep=b"], ConfigError, "allowed: one of them"),
        (["evaluate=thorough"], ConfigError, "evaluate is 'thorough'; allowed: quick, honest"),
    ],
)
@pytest.mark.usefixtures("home")
def test_what_cannot_be_judged_is_refused(overrides: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gate(*overrides)


def test_a_file_is_predicted_by_the_promoted_model(home: Path) -> None:
    train(home, *BETTER)
    gate()
    frame = rentals_frame(50, seed=3)
    frame.to_csv(home / "rows.csv", index=False)
    cfg = config("predict", "data=rentals", f"file={home}/rows.csv", f"out={home}/out.csv", "source=models:/housing-rentals/1")
    assert predict(cfg) == 50
    written = pd.read_csv(home / "out.csv")
    assert score(written.rent_predicted.to_numpy(), frame.rent.to_numpy())["rmse"] < 60
    assert (home / "out.csv").read_text().startswith("area,rooms,furnished,quarter,built,rent,rent_predicted\n")
