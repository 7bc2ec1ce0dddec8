"""The gate: nothing reaches an alias that was not proven on the test rows, and every decision is kept."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from housing.bundle.bundle import Bundle
from housing.core.errors import ConfigError, StoreError
from housing.data.split import split
from housing.data.table import load
from housing.evaluation.results import Evaluation
from housing.predict import predict
from housing.promotion.decision import Decision
from housing.promotion.decision_log import list_decisions
from housing.promotion.promotion import promote
from housing.promotion.rolling_back import rollback
from housing.tracking import store as tracking_store
from housing.tracking import tags
from housing.tracking.store import Store
from housing.training.metrics import score
from server.rehearsal import run_smoke_test
from tests.support.commands import command
from tests.support.promotions import (
    BETTER,
    MODEL,
    STEPS,
    TABLE,
    WORSE,
    copied,
    killed,
    one_promoted_and_a_better_one_trained,
    opened,
)
from tests.support.server import new_key
from tests.support.tables import TABLES, config, rentals_frame, train


@pytest.fixture
def store(home: Path) -> Store:
    """The store of the test's own home."""
    return tracking_store.Store(f"sqlite:///{home}/mlflow.db", artifact_root=str(home / "mlartifacts"), ui="")


FORCED = ("force=true", "force_reason=a person says so")
COVERED = "gate.coverage={nominal: 0.9, min: 0.995, max: 1.0}"


def gate(*overrides: str) -> Decision:
    """Promote as the command does."""
    return promote(config("promote", "data=rentals", *overrides))


def bundle_files(store: Store, run_id: str) -> Path:
    """Where the bundle of a run lies on this machine."""
    model = store.client.api.get_logged_model(store.runs.get(run_id).tags[tags.MODEL_ID])
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
    assert store.client.api.get_model_version(MODEL, "1").run_id == run.run_id


def test_a_better_run_replaces_the_champion_and_a_worse_one_does_not(home: Path, store: Store) -> None:
    worse = train(home, *WORSE)
    assert gate().version == "1"
    better = train(home, *BETTER)
    decision = gate()
    assert (decision.run_id, decision.champion, decision.verdict) == (better.run_id, "version 1", "PROMOTE")
    assert decision.challenger_metrics["rmse"] < decision.champion_metrics["rmse"]
    back = gate(f"run_id={worse.run_id}")
    assert (back.verdict, back.version, back.previous_version) == ("REJECT", "2", "2")
    assert back.reasons[-1].startswith("worse: test rmse")
    assert store.registry.version_at(MODEL, "staging") == "2"


def test_force_moves_the_alias_all_the_same_and_its_reason_is_kept(home: Path, store: Store) -> None:
    worse = train(home, *WORSE)
    gate()
    train(home, *BETTER)
    gate()
    decision = gate(f"run_id={worse.run_id}", "force=true", "force_reason=the other one is biased")
    assert (decision.verdict, decision.force_reason) == ("PROMOTE", "the other one is biased")
    assert (decision.previous_version, decision.version) == ("2", "1")  # the same bundle stays the same version
    assert decision.reasons[-1] == "forced, and the gate says REJECT: the other one is biased"
    assert store.registry.version_at(MODEL, "staging") == "1"
    (newest, *_) = store.runs.find_latest("rentals-decisions", {}, 1)
    assert newest.tags["housing.forced"] == "true" and "the other one is biased" in newest.tags["housing.reason"]


def test_an_equal_run_is_held(home: Path, store: Store) -> None:
    train(home, *BETTER)
    gate()
    again = train(home, *BETTER, "force_rerun=true")
    decision = gate(f"run_id={again.run_id}")
    assert (decision.verdict, decision.version) == ("HOLD", "1")
    assert decision.difference is not None and decision.difference.difference == 0.0
    assert decision.reasons[-1].startswith("not proven better: test rmse")
    assert store.registry.version_at(MODEL, "staging") == "1"


def test_production_takes_what_is_at_staging_and_nothing_else(home: Path, store: Store) -> None:
    run = train(home, *WORSE)
    with pytest.raises(StoreError, match="has no version at staging, and production takes the one that is there"):
        gate("alias=production")
    gate()
    with pytest.raises(ConfigError, match="run_id is given; alias=production takes the version at staging and nothing else"):
        gate("alias=production", f"run_id={run.run_id}")
    first = gate("alias=production", "evaluate=quick")
    assert (first.verdict, first.champion, first.version) == ("PROMOTE", "the training mean", "1")
    assert gate("alias=production", "evaluate=quick").verdict == "HOLD"
    train(home, *BETTER)
    gate()
    second = gate("alias=production", "evaluate=quick")
    assert (second.verdict, second.champion, second.previous_version, second.version) == ("PROMOTE", "version 1", "1", "2")
    assert store.registry.version_at(MODEL, "production") == store.registry.version_at(MODEL, "staging") == "2"
    kept = store.client.api.get_model_version(MODEL, "2").tags
    assert {json.loads(kept[f"housing.decision.{alias}"])["alias"] for alias in ("staging", "production")} == {
        "staging",
        "production",
    }


def test_new_rows_do_not_keep_the_version_at_staging_from_production(home: Path) -> None:
    train(home, *BETTER)
    gate()
    more = pd.concat([rentals_frame(), rentals_frame(200, seed=5)])
    more.to_csv(home / "data" / "rentals.csv", index=False)
    assert gate("alias=production", "evaluate=quick").verdict == "PROMOTE"  # a row of split=hash never moves
    with pytest.raises(StoreError, match="version 1 at staging was fitted on other data or another split"):
        gate("alias=production", "split=random")


def test_a_rehearsal_has_a_real_server_answer_the_golden_rows(home: Path, store: Store) -> None:
    train(home, *BETTER)
    refused = gate("gate.smoke_test_seconds=60", "serve.max_rows=3")
    assert (refused.verdict, refused.version) == ("REJECT", None)
    assert "rejected the golden rows (4" in refused.reasons[-1]
    assert store.registry.version_at(MODEL, "staging") is None
    late = gate("gate.smoke_test_seconds=0.01", "force=true", "force_reason=now")  # force does not make it work
    assert (late.verdict, late.force_reason) == ("REJECT", "")
    assert "not ready within 0.01 s" in late.reasons[-1]
    decision = gate("gate.smoke_test_seconds=60")
    assert decision.verdict == "PROMOTE" and decision.checks[-1].name == "smoke test"


def test_a_rehearsal_asks_for_no_key(tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUSING_KEYS", new_key("one", "predict")[1])
    bundle.write(tmp_path / "bundle")
    run_smoke_test(config("promote", "data=rentals").serve, bundle, tmp_path / "bundle", 60)


def test_a_limit_vetoes_whatever_the_score(home: Path) -> None:
    train(home, *BETTER)
    limits = {"model_bytes": "gate.model_bytes=10", "latency_us": "gate.latency_us=0.1", "coverage": COVERED}
    for name, limit in limits.items():
        decision = gate(limit)
        assert decision.verdict == "REJECT"
        assert [check.name for check in decision.checks if not check.passed] == [name]
        assert decision.reasons[0].startswith(f"{name}: ")


def test_the_run_in_service_is_held(home: Path, store: Store) -> None:
    train(home, *BETTER)
    gate()
    decision = gate()
    assert (decision.verdict, decision.version) == ("HOLD", "1")
    assert decision.reasons == ["this run is version 1 at staging already"]
    assert len(store.client.api.search_model_versions(f"name = '{MODEL}'")) == 1


def test_every_decision_is_a_run_with_its_figures(home: Path, store: Store) -> None:
    run = train(home, *BETTER)
    gate()
    gate()
    records = store.client.api.search_runs(
        [store.client.experiment_id("rentals-decisions")], order_by=["attributes.start_time ASC"]
    )
    assert [record.data.tags["housing.verdict"] for record in records] == ["PROMOTE", "HOLD"]
    kept = json.loads(store.artifacts.read_text(records[0].info.run_id, "decision.json"))
    assert kept["run_id"] == records[0].data.tags["housing.challenger"] == run.run_id
    assert kept["challenger_metrics"]["rmse"] == records[0].data.metrics["challenger_rmse"]


def test_an_honest_evaluation_is_recorded_and_changes_no_verdict(home: Path, store: Store) -> None:
    train(home, *BETTER)
    quick, honest = gate(), gate("alias=production")
    assert quick.evaluation is None and honest.evaluation is not None
    assert (quick.verdict, quick.challenger_metrics) == (honest.verdict, honest.challenger_metrics)
    newest, older = store.client.api.search_runs(
        [store.client.experiment_id("rentals-decisions")], order_by=["attributes.start_time DESC"]
    )
    kept = Evaluation.from_dict(json.loads(store.artifacts.read_text(newest.info.run_id, "evaluation.json")))
    assert kept == honest.evaluation and kept.scores == honest.challenger_metrics
    assert kept.metrics().items() <= newest.data.metrics.items()
    assert newest.data.tags["housing.evaluated"] == "full" and "housing.evaluated" not in older.data.tags
    assert [item.path for item in store.client.api.list_artifacts(older.info.run_id)] == ["decision.json"]
    assert gate("alias=production", "evaluate=quick").evaluation is None


def test_an_honest_evaluation_is_printed(home: Path) -> None:
    train(home, *BETTER)
    ended = command(home, "housing.promote", f"--config-dir={TABLES}", "data=rentals", "evaluate=full")
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
    assert store.registry.version_at(MODEL, "staging") == "1"


def test_a_champion_that_cannot_be_read_is_replaced_by_force_alone(home: Path, store: Store) -> None:
    run = train(home, *BETTER)
    gate()
    spoil(bundle_files(store, str(run.run_id)) / "card.json")
    asked = f"run_id={train(home, *WORSE).run_id}"
    decision = gate(asked)
    assert (decision.verdict, decision.champion, decision.version) == ("HOLD", "the training mean", "1")
    assert "version 1 at staging cannot be read, so nobody knows what there is to beat: bundle " in decision.reasons[-1]
    assert store.registry.version_at(MODEL, "staging") == "1"
    assert gate(asked, "force=true", "force_reason=it is broken").reasons[-1] == "forced, and the gate says HOLD: it is broken"
    assert store.registry.version_at(MODEL, "staging") == "2"


def test_what_was_rolled_back_comes_again_by_force_alone(home: Path, store: Store) -> None:
    train(home, *WORSE)
    gate()
    better = train(home, *BETTER)
    for alias in ("staging", "production"):
        assert gate(f"alias={alias}", "~promotes_from.production", f"run_id={better.run_id}", *FORCED).version == "2"
        rollback(config("rollback", "data=rentals", f"alias={alias}", "version=1", "actor=somebody", "reason=prices are off"))
        decision = gate(f"alias={alias}", "~promotes_from.production", f"run_id={better.run_id}")
        assert (decision.verdict, decision.version) == ("HOLD", "1")
        assert re.search(r"version 2 was rolled back by somebody \(.*\): prices are off", decision.reasons[-1])
        assert store.registry.version_at(MODEL, alias) == "1"
    assert gate(*FORCED).version == "2"
    gate(f"run_id={store.registry.run_of_version(MODEL, '1')}", *FORCED)
    assert gate().verdict == "PROMOTE"  # it was replaced since, not rolled back


def test_a_run_without_its_bundle_is_fitted_again_and_that_is_told(home: Path, store: Store) -> None:
    run = train(home, *BETTER)
    store.client.api.delete_tag(str(run.run_id), tags.MODEL_ID)  # as log_model=best leaves all but the best
    decision = gate()
    assert decision.verdict == "PROMOTE"
    assert decision.reasons[0] == "the run kept no bundle: it was fitted again from its config"
    assert store.runs.get(str(run.run_id)).tags["housing.refitted"] == "true"
    assert mlflow.pyfunc.load_model(f"models:/{MODEL}@staging")


def test_the_best_run_is_one_of_this_table_and_split(home: Path, store: Store) -> None:
    elsewhere = train(home, *BETTER, "split=random")
    with pytest.raises(
        StoreError, match="no finished run on this table, its columns and this split with evaluation=holdout; train first"
    ):
        gate()
    with pytest.raises(StoreError, match=f"run {elsewhere.run_id} was fitted on another split"):
        gate(f"run_id={elsewhere.run_id}")
    assert gate("split=random").verdict == "PROMOTE"
    here = train(home, *WORSE)
    decision = gate()
    assert decision.run_id == here.run_id
    assert "the champion was fitted on other data or another split: it may know some of the test rows" in decision.reasons
    assert store.registry.version_at(MODEL, "staging") == "1"


def test_the_best_run_has_the_columns_that_the_table_has_now(home: Path) -> None:
    before = train(home, *BETTER)
    wider = "data.columns.quarter.categories=[old town,harbour,hills,sea]"
    with pytest.raises(StoreError, match="no finished run on this table, its columns and this split"):
        gate(wider)
    with pytest.raises(StoreError, match=f"run {before.run_id} was fitted on other columns"):
        gate(wider, f"run_id={before.run_id}")
    now = train(home, *WORSE, wider)
    assert gate(wider).run_id == now.run_id
    assert gate().run_id == before.run_id


def test_callers_of_the_champion_may_go_on_sending_what_they_send(home: Path, store: Store) -> None:
    train(home, *WORSE)
    gate()
    retyped = "data.columns.rooms.type=float"
    train(home, *BETTER, retyped)
    decision = gate(retyped)
    assert (decision.verdict, decision.version, decision.champion) == ("REJECT", "1", "version 1")
    assert "columns: column rooms is of type float, it was int; allowed: what callers of the champion send" in decision.reasons
    removed = "~data.columns.area"
    rentals_frame().drop(columns="area").to_csv(home / "data" / "rentals.csv", index=False)
    train(home, "data=rentals", *BETTER, removed)
    gone = gate(removed)
    assert (gone.verdict, gone.champion) == ("REJECT", "the training mean")
    assert "columns: column area is gone; allowed: what callers of the champion send" in gone.reasons
    assert gate(removed, "force=true", "force_reason=nobody measures it any more").verdict == "PROMOTE"
    assert store.registry.version_at(MODEL, "staging") == "2"


def test_wider_columns_are_compared_on_the_rows_that_both_take(home: Path) -> None:
    train(home, *WORSE)
    gate()
    change = "data.columns.quarter.categories=[old town,harbour,hills,sea]"
    frame = rentals_frame()
    frame.loc[frame.index % 10 == 0, "quarter"] = "sea"
    frame.to_csv(home / "data" / "rentals.csv", index=False)
    train(home, *BETTER, change)
    decision = gate(change)
    assert (decision.verdict, decision.champion) == ("PROMOTE", "version 1")
    assert any("version 1 has other columns: it can predict" in reason for reason in decision.reasons)
    assert decision.difference is not None and decision.difference.rows < decision.test_rows


def test_a_champion_that_is_out_of_reach_ends_the_promotion(home: Path, store: Store) -> None:
    run = train(home, *WORSE)
    gate()
    train(home, *BETTER)
    shutil.rmtree(bundle_files(store, str(run.run_id)).parents[1])  # as where the artefact store is away
    with pytest.raises(StoreError, match="its artefacts are not there"):
        gate()
    assert store.registry.version_at(MODEL, "staging") == "1"


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["run_id=nope"], StoreError, "knows no run nope"),
        (["sweep=nope"], StoreError, "cannot give runs:/nope/jobs.json"),
        (["gate.slices.max_regression=abc"], ConfigError, "gate.slices.max_regression is 'abc'; allowed: a number, 0 or above"),
        (["gate.confidence=1.0"], ConfigError, "gate.confidence is 1.0; allowed: a number from 0.5 to below 1"),
        (["gate.coverage.nominal=90"], ConfigError, "gate.coverage.nominal is 90; allowed: a number above 0 and below 1"),
        (["gate.coverage.min=80"], ConfigError, "gate.coverage.min is 80; allowed: a number from 0 to 1"),
        (["gate.coverage.min=0.99"], ConfigError, "gate.coverage.min is 0.99; allowed: up to max, 0.98"),
        (["gate.n_resamples=0"], ConfigError, "gate.n_resamples is 0; allowed: a whole number, 1 or above"),
        (["gate.seed=x"], ConfigError, "gate.seed is 'x'"),
        (["gate.slices.min_rows=0.5"], ConfigError, "gate.slices.min_rows is 0.5"),
        (["gate.smoke_test_seconds=soon"], ConfigError, "gate.smoke_test_seconds is 'soon'; allowed: a number above 0, or null"),
        (["serve.wait_seconds=long"], ConfigError, "serve.wait_seconds is 'long'; allowed: a number, 0 or above"),
        (["alias='a b'"], ConfigError, "alias is 'a b'; allowed: letters, digits"),
        (["alias=latest"], ConfigError, "alias is 'latest'; allowed: .*neither latest nor v and a number"),
        (["force=true"], ConfigError, "force=true wants a reason"),
        (["force=true", "force_reason='  '"], ConfigError, "force=true wants a reason"),
        (["force_reason=because"], ConfigError, "force_reason is given without force=true"),
        (["metric=r2"], ConfigError, "metric is 'r2'; allowed: rmse, mae"),
        (["run_id=a", "sweep=b"], ConfigError, "allowed: one of them"),
        (["evaluate=thorough"], ConfigError, "evaluate is 'thorough'; allowed: quick, full"),
    ],
)
@pytest.mark.usefixtures("home")
def test_what_cannot_be_judged_is_refused(overrides: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gate(*overrides)


@pytest.mark.long
def test_a_rejection_ends_with_1_unless_a_file_is_asked_for_which_then_says_so(home: Path) -> None:
    train(home, *BETTER)
    asked = ("housing.promote", *TABLE, "gate.model_bytes=1")
    rejected = command(home, *asked)
    assert rejected.code == 1 and rejected.out.startswith("REJECT  housing-rentals at alias staging")
    assert "│ model_bytes" in rejected.out and "staging is nothing, as before" in rejected.out
    assert command(home, *asked, f"out={home}/decision.json").code == 0
    kept = json.loads((home / "decision.json").read_text(encoding="utf-8"))
    assert (kept["verdict"], kept["version"]) == ("REJECT", None)


@pytest.fixture(scope="module")
def promotable(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A home where version 1 is at staging, and a better run waits."""
    place = tmp_path_factory.mktemp("promotable")
    shutil.copy(empty_store, place / "mlflow.db")
    one_promoted_and_a_better_one_trained(place)
    return place


@pytest.mark.long
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_the_alias_is_at_a_version_that_works_and_the_next_promotion_goes_on(
    promotable: Path, home: Path, step: str
) -> None:
    copied(promotable, home)
    left = killed(home, step)
    assert left.works and not left.orphans
    assert left.version == ("2" if step in ("the alias has moved", "the server is asked") else "1")
    decision = gate()
    assert (decision.verdict, decision.version) == ("HOLD" if left.version == "2" else "PROMOTE", "2")
    store = opened(home)
    assert len(store.client.api.search_model_versions(f"name = '{MODEL}'")) == 2  # what was registered is used
    assert all(one.decided_at and one.verdict for one in list_decisions(store, "rentals-decisions"))
    assert not store.client.api.search_runs([store.client.experiment_id("rentals-decisions")], "attributes.status = 'RUNNING'")
    assert rollback(config("rollback", "data=rentals")).version == "1"


@pytest.mark.long
def test_of_two_promotions_at_once_one_waits(promotable: Path, home: Path) -> None:
    copied(promotable, home)
    both = [
        subprocess.Popen(  # pylint: disable=consider-using-with  # both at once
            [sys.executable, "-m", "housing.promote", *TABLE],
            env={**os.environ, "HOUSING_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=200)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted(re.findall(r"^(\w+)  housing-rentals", "\n".join(said), re.MULTILINE)) == ["HOLD", "PROMOTE"]
    assert sum("another process is at this very work (promotions)" in one for one in said) == 1
    assert len(opened(home).client.api.search_model_versions(f"name = '{MODEL}'")) == 2


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
