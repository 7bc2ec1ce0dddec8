"""Promotion with a real store: verdicts, the moves of the alias, and the logged decisions."""

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
from housing.promotion.decision_log import list_decisions
from housing.promotion.rolling_back import rollback
from housing.scoring.metrics import score
from housing.serving.smoke_test import run_smoke_test
from housing.tracking import store as tracking_store
from housing.tracking import tags
from housing.tracking.store import Store
from tests.support.commands import command
from tests.support.homes import copy_home
from tests.support.promotions import (
    BETTER,
    MODEL,
    STEPS,
    TABLE,
    WORSE,
    bundle_directory,
    corrupt,
    create_promotable_home,
    kill_promotion,
    open_store,
    promote_rentals,
)
from tests.support.server import new_key
from tests.support.tables import TABLES, config, rentals_frame, train


@pytest.fixture
def store(home: Path) -> Store:
    """Return the store of the test's home."""
    return tracking_store.Store(f"sqlite:///{home}/mlflow.db", artifact_root=str(home / "mlartifacts"), ui="")


FORCE = ("force=true", "force_reason=requested")
NARROW_COVERAGE = "gate.coverage={nominal: 0.9, min: 0.995, max: 1.0}"


def test_the_first_model_must_beat_the_training_mean(home: Path, store: Store) -> None:
    run = train(home, *WORSE)
    decision = promote_rentals()
    assert (decision.verdict, decision.champion, decision.version) == ("PROMOTE", "the training mean", "1")
    cfg = config("train", "data=rentals")
    table = load(cfg.data)
    parts = split(table, cfg.split)
    mean = np.full(len(parts.test), table.target[parts.train].mean())
    assert decision.champion_metrics == pytest.approx(score(mean, table.target[parts.test], None))
    model = mlflow.pyfunc.load_model(f"models:/{MODEL}@staging")
    frame = rentals_frame().drop(columns="rent").astype({"rooms": float}).iloc[parts.test]
    assert decision.challenger_metrics == pytest.approx(score(model.predict(frame), table.target[parts.test], None))
    assert store.client.api.get_model_version(MODEL, "1").run_id == run.run_id


def test_a_better_run_replaces_the_champion_and_a_worse_one_does_not(home: Path, store: Store) -> None:
    worse = train(home, *WORSE)
    assert promote_rentals().version == "1"
    better = train(home, *BETTER)
    decision = promote_rentals()
    assert (decision.run_id, decision.champion, decision.verdict) == (better.run_id, "version 1", "PROMOTE")
    assert decision.challenger_metrics["rmse"] < decision.champion_metrics["rmse"]
    second = promote_rentals(f"run_id={worse.run_id}")
    assert (second.verdict, second.version, second.previous_version) == ("REJECT", "2", "2")
    assert any(reason.startswith("significantly worse: test rmse") for reason in second.reasons)
    assert store.registry.version_at(MODEL, "staging") == "2"


def test_force_moves_the_alias_against_the_verdict_and_its_reason_is_logged(home: Path, store: Store) -> None:
    worse = train(home, *WORSE)
    promote_rentals()
    train(home, *BETTER)
    promote_rentals()
    decision = promote_rentals(f"run_id={worse.run_id}", "force=true", "force_reason=the other one is biased")
    assert (decision.verdict, decision.force_reason) == ("PROMOTE", "the other one is biased")
    assert (decision.previous_version, decision.version) == ("2", "1")  # the same bundle keeps its version
    assert "REJECT" in decision.reasons[-1] and "the other one is biased" in decision.reasons[-1]
    assert store.registry.version_at(MODEL, "staging") == "1"
    (newest,) = store.runs.find_latest("rentals-decisions", {}, 1)
    assert newest.tags["housing.forced"] == "true" and "the other one is biased" in newest.tags["housing.reason"]


def test_an_equal_run_gets_the_verdict_hold(home: Path, store: Store) -> None:
    train(home, *BETTER)
    promote_rentals()
    repeated = train(home, *BETTER, "force_rerun=true")
    decision = promote_rentals(f"run_id={repeated.run_id}")
    assert (decision.verdict, decision.version) == ("HOLD", "1")
    assert decision.difference is not None and decision.difference.difference == 0.0
    assert decision.reasons[-1].startswith("no significant difference: test rmse")
    assert f"alias=staging run_id={repeated.run_id} force=true force_reason=REASON" in decision.next_command
    canary = promote_rentals(f"run_id={repeated.run_id}", "canary=0.2", "gate.smoke_test_seconds=null")
    assert f"run_id={repeated.run_id} canary=0.2 force=true" in canary.next_command  # pasting it must not promote at once
    assert store.registry.version_at(MODEL, "staging") == "1"


def test_production_only_takes_the_version_at_staging(home: Path, store: Store) -> None:
    run = train(home, *WORSE)
    with pytest.raises(StoreError, match="has no version at staging, from which production is promoted"):
        promote_rentals("alias=production")
    promote_rentals()
    with pytest.raises(ConfigError, match="run_id cannot be combined with alias=production.*staging"):
        promote_rentals("alias=production", f"run_id={run.run_id}")
    first = promote_rentals("alias=production", "evaluate=quick")
    assert (first.verdict, first.champion, first.version) == ("PROMOTE", "the training mean", "1")
    assert promote_rentals("alias=production", "evaluate=quick").verdict == "HOLD"
    train(home, *BETTER)
    promote_rentals()
    second = promote_rentals("alias=production", "evaluate=quick")
    assert (second.verdict, second.champion, second.previous_version, second.version) == ("PROMOTE", "version 1", "1", "2")
    assert store.registry.version_at(MODEL, "production") == store.registry.version_at(MODEL, "staging") == "2"
    version_tags = store.client.api.get_model_version(MODEL, "2").tags
    assert {json.loads(version_tags[f"housing.decision.{alias}"])["alias"] for alias in ("staging", "production")} == {
        "staging",
        "production",
    }


def test_new_rows_do_not_block_the_version_at_staging_from_production(home: Path) -> None:
    train(home, *BETTER)
    promote_rentals()
    more = pd.concat([rentals_frame(), rentals_frame(200, seed=5)])
    more.to_csv(home / "data" / "rentals.csv", index=False)
    assert promote_rentals("alias=production", "evaluate=quick").verdict == "PROMOTE"  # a row of split=hash never moves
    with pytest.raises(StoreError, match="Version 1 at staging was fitted on another table or split"):
        promote_rentals("alias=production", "split=random")


def test_the_smoke_test_needs_a_server_that_predicts_the_golden_rows(home: Path, store: Store) -> None:
    train(home, *BETTER)
    refused = promote_rentals("gate.smoke_test_seconds=60", "serve.max_rows=3")
    assert (refused.verdict, refused.version) == ("REJECT", None)
    assert "golden rows" in refused.reasons[-1]
    assert store.registry.version_at(MODEL, "staging") is None
    late = promote_rentals("gate.smoke_test_seconds=0.01", "force=true", "force_reason=now")  # force cannot override it
    assert (late.verdict, late.force_reason) == ("HOLD", "")
    assert "not ready within 0.01 s" in late.reasons[-1] and "gate.smoke_test_seconds" in late.reasons[-1]
    decision = promote_rentals("gate.smoke_test_seconds=60")
    assert decision.verdict == "PROMOTE" and decision.checks[-1].name == "smoke test"


def test_the_smoke_test_needs_no_api_key(tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUSING_KEYS", new_key("one", "predict")[1])
    bundle.write(tmp_path / "bundle")
    run_smoke_test(config("promote", "data=rentals").serve, bundle, tmp_path / "bundle", 60)


def test_an_exceeded_limit_rejects_whatever_the_score(home: Path) -> None:
    train(home, *BETTER)
    limits = {"model_bytes": "gate.model_bytes=10", "latency_us": "gate.latency_us=0.1", "coverage": NARROW_COVERAGE}
    for name, limit in limits.items():
        decision = promote_rentals(limit)
        assert decision.verdict == "REJECT"
        assert [check.name for check in decision.checks if not check.passed] == [name]
        assert decision.reasons[0].startswith(f"{name} check failed: ")


def test_the_run_at_the_alias_gets_the_verdict_hold(home: Path, store: Store) -> None:
    train(home, *BETTER)
    promote_rentals()
    decision = promote_rentals()
    assert (decision.verdict, decision.version) == ("HOLD", "1")
    assert decision.reasons == ["this run is already version 1 at staging"] and not decision.next_command
    assert len(store.client.api.search_model_versions(f"name = '{MODEL}'")) == 1


def test_every_decision_is_logged_as_a_run_with_its_metrics(home: Path, store: Store) -> None:
    run = train(home, *BETTER)
    promote_rentals()
    promote_rentals()
    records = store.client.api.search_runs(
        [store.client.experiment_id("rentals-decisions")], order_by=["attributes.start_time ASC"]
    )
    assert [record.data.tags["housing.verdict"] for record in records] == ["PROMOTE", "HOLD"]
    logged = json.loads(store.artifacts.read_text(records[0].info.run_id, "decision.json"))
    assert logged["run_id"] == records[0].data.tags["housing.challenger"] == run.run_id
    assert logged["challenger_metrics"]["rmse"] == records[0].data.metrics["challenger_rmse"]


def test_a_full_evaluation_is_logged_and_does_not_change_the_verdict(home: Path, store: Store) -> None:
    train(home, *BETTER)
    quick, full = promote_rentals(), promote_rentals("alias=production")
    assert quick.evaluation is None and full.evaluation is not None
    assert (quick.verdict, quick.challenger_metrics) == (full.verdict, full.challenger_metrics)
    newest, older = store.client.api.search_runs(
        [store.client.experiment_id("rentals-decisions")], order_by=["attributes.start_time DESC"]
    )
    logged = Evaluation.from_dict(json.loads(store.artifacts.read_text(newest.info.run_id, "evaluation.json")))
    assert logged == full.evaluation and logged.scores == full.challenger_metrics
    assert logged.metrics().items() <= newest.data.metrics.items()
    assert newest.data.tags["housing.evaluated"] == "full" and "housing.evaluated" not in older.data.tags
    assert [item.path for item in store.client.api.list_artifacts(older.info.run_id)] == ["decision.json"]
    assert promote_rentals("alias=production", "evaluate=quick").evaluation is None


def test_a_full_evaluation_is_printed(home: Path) -> None:
    train(home, *BETTER)
    result = command(home, "housing.promote", f"--config-dir={TABLES}", "data=rentals", "evaluate=full")
    assert result.code == 0, result.err
    assert "Full evaluation" in result.out and "95 % interval: " in result.out and "90 % intervals cover " in result.out
    assert "skipped: grouped and blocks splits: table rentals has no coordinates" in result.out


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        (lambda bundle: corrupt(bundle / "members/0/model.onnx"), "model.onnx"),
        (lambda bundle: (bundle / "card.json").unlink(), "card.json"),
        (lambda bundle: (bundle / "run_me.py").write_text("print(1)"), "run_me.py"),
    ],
)
def test_a_damaged_bundle_is_rejected_and_the_alias_is_unchanged(
    home: Path, store: Store, damage: Callable[[Path], object], file: str
) -> None:
    train(home, *WORSE)
    promote_rentals()
    better = train(home, *BETTER)
    damage(bundle_directory(store, str(better.run_id)))
    decision = promote_rentals()
    assert (decision.verdict, decision.run_id, decision.version) == ("REJECT", better.run_id, "1")
    assert file in decision.reasons[0]
    assert store.registry.version_at(MODEL, "staging") == "1"


def test_a_champion_that_cannot_be_read_is_only_replaced_by_force(home: Path, store: Store) -> None:
    run = train(home, *BETTER)
    promote_rentals()
    corrupt(bundle_directory(store, str(run.run_id)) / "card.json")
    selector = f"run_id={train(home, *WORSE).run_id}"
    decision = promote_rentals(selector)
    assert (decision.verdict, decision.champion, decision.version) == ("HOLD", "the training mean", "1")
    assert decision.reasons[-1].startswith("version 1 at staging could not be read")
    assert store.registry.version_at(MODEL, "staging") == "1"
    forced = promote_rentals(selector, "force=true", "force_reason=it is broken")
    assert "HOLD" in forced.reasons[-1] and "it is broken" in forced.reasons[-1]
    assert store.registry.version_at(MODEL, "staging") == "2"


def test_a_version_that_was_rolled_back_only_returns_by_force(home: Path, store: Store) -> None:
    train(home, *WORSE)
    promote_rentals()
    better = train(home, *BETTER)
    for alias in ("staging", "production"):
        assert promote_rentals(f"alias={alias}", "aliases.production=null", f"run_id={better.run_id}", *FORCE).version == "2"
        rollback(config("rollback", "data=rentals", f"alias={alias}", "version=1", "actor=somebody", "reason=prices are off"))
        decision = promote_rentals(f"alias={alias}", "aliases.production=null", f"run_id={better.run_id}")
        assert (decision.verdict, decision.version) == ("HOLD", "1")
        assert re.search(r"version 2 was rolled back by somebody \(.*\): prices are off", decision.reasons[-1])
        assert store.registry.version_at(MODEL, alias) == "1"
    assert promote_rentals(*FORCE).version == "2"
    promote_rentals(f"run_id={store.registry.run_of_version(MODEL, '1')}", *FORCE)
    assert promote_rentals().verdict == "PROMOTE"  # since then it was replaced, not rolled back


def test_a_run_without_a_bundle_is_refitted(home: Path, store: Store) -> None:
    run = train(home, *BETTER)
    store.client.api.delete_tag(str(run.run_id), tags.MODEL_ID)  # as after a sweep with log_model=best
    decision = promote_rentals()
    assert decision.verdict == "PROMOTE"
    assert "refitted" in decision.reasons[0]
    assert store.runs.get(str(run.run_id)).tags["housing.refitted"] == "true"
    assert mlflow.pyfunc.load_model(f"models:/{MODEL}@staging")


def test_the_best_run_must_have_this_table_and_split(home: Path, store: Store) -> None:
    random_split_run = train(home, *BETTER, "split=random")
    with pytest.raises(StoreError, match="no finished run on this table, its columns and this split with evaluation=holdout"):
        promote_rentals()
    with pytest.raises(StoreError, match=f"Run {random_split_run.run_id} was fitted on another split"):
        promote_rentals(f"run_id={random_split_run.run_id}")
    assert promote_rentals("split=random").verdict == "PROMOTE"
    hash_split_run = train(home, *WORSE)
    decision = promote_rentals()
    assert decision.run_id == hash_split_run.run_id
    assert any(reason.startswith("the champion was fitted on another table or split") for reason in decision.reasons)
    assert store.registry.version_at(MODEL, "staging") == "1"


def test_the_best_run_must_have_the_current_columns_of_the_table(home: Path) -> None:
    narrow_run = train(home, *BETTER)
    wider = "data.columns.quarter.categories=[old town,harbour,hills,sea]"
    with pytest.raises(StoreError, match="no finished run on this table, its columns and this split"):
        promote_rentals(wider)
    with pytest.raises(StoreError, match=f"Run {narrow_run.run_id} was fitted on other columns"):
        promote_rentals(wider, f"run_id={narrow_run.run_id}")
    wide_run = train(home, *WORSE, wider)
    assert promote_rentals(wider).run_id == wide_run.run_id
    assert promote_rentals().run_id == narrow_run.run_id


def test_a_challenger_that_breaks_the_champions_requests_is_rejected(home: Path, store: Store) -> None:
    train(home, *WORSE)
    promote_rentals()
    retyped = "data.columns.rooms.type=float"
    train(home, *BETTER, retyped)
    decision = promote_rentals(retyped)
    assert (decision.verdict, decision.version, decision.champion) == ("REJECT", "1", "version 1")
    assert any(reason.startswith("columns check failed: ") and "rooms" in reason for reason in decision.reasons)
    removed = "~data.columns.area"
    rentals_frame().drop(columns="area").to_csv(home / "data" / "rentals.csv", index=False)
    train(home, "data=rentals", *BETTER, removed)
    gone = promote_rentals(removed)
    assert (gone.verdict, gone.champion) == ("REJECT", "the training mean")
    assert any(reason.startswith("columns check failed: ") and "area" in reason for reason in gone.reasons)
    assert promote_rentals(removed, "force=true", "force_reason=nobody measures it any more").verdict == "PROMOTE"
    assert store.registry.version_at(MODEL, "staging") == "2"


def test_models_with_different_columns_are_compared_on_rows_that_both_accept(home: Path) -> None:
    train(home, *WORSE)
    promote_rentals()
    change = "data.columns.quarter.categories=[old town,harbour,hills,sea]"
    frame = rentals_frame()
    frame.loc[frame.index % 10 == 0, "quarter"] = "sea"
    frame.to_csv(home / "data" / "rentals.csv", index=False)
    train(home, *BETTER, change)
    decision = promote_rentals(change, "gate.min_rows=50")
    assert (decision.verdict, decision.champion) == ("PROMOTE", "version 1")
    assert any("version 1 has other columns and accepts" in reason for reason in decision.reasons)
    assert decision.difference is not None and decision.difference.rows < decision.test_rows


def test_a_champion_whose_artifacts_are_missing_ends_the_promotion(home: Path, store: Store) -> None:
    run = train(home, *WORSE)
    promote_rentals()
    train(home, *BETTER)
    shutil.rmtree(bundle_directory(store, str(run.run_id)).parents[1])
    with pytest.raises(StoreError, match="its artifacts are missing"):
        promote_rentals()
    assert store.registry.version_at(MODEL, "staging") == "1"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["run_id=nope"], ["no run nope"]),
        (["sweep=nope"], ["no run nope"]),
    ],
)
@pytest.mark.usefixtures("home")
def test_an_unknown_run_or_sweep_is_an_error(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(StoreError) as error:
        promote_rentals(*overrides)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["gate.slices.max_regression=abc"], ["gate.slices.max_regression", "'abc'", "a number"]),
        (["gate.confidence=1.0"], ["gate.confidence", "1.0", "0.5"]),
        (["gate.coverage.nominal=90"], ["gate.coverage.nominal", "90", "below 1"]),
        (["gate.coverage.min=80"], ["gate.coverage.min", "80", "from 0 to 1"]),
        (["gate.coverage.min=0.99"], ["gate.coverage.min", "0.99", "0.98"]),
        (["gate.n_resamples=0"], ["gate.n_resamples", "0", "1"]),
        (["gate.seed=x"], ["gate.seed", "'x'"]),
        (["gate.slices.min_rows=0.5"], ["gate.slices.min_rows", "0.5"]),
        (["gate.smoke_test_seconds=soon"], ["gate.smoke_test_seconds", "'soon'", "null"]),
        (["serve.wait_seconds=long"], ["serve.wait_seconds", "'long'"]),
        (["alias=prodution"], ["alias must be one of staging, production", "'prodution'", "Did you mean alias=production?"]),
        (["+aliases.latest=null", "alias=latest"], ["aliases", "(got 'latest')"]),
        (["force=true"], ["force=true", "reason"]),
        (["force=true", "force_reason='  '"], ["force=true", "reason"]),
        (["force_reason=because"], ["force_reason", "force=true"]),
        (["metric=r2"], ["metric", "'r2'", "rmse or mae"]),
        (["run_id=a", "sweep=b"], ["run_id and sweep", "at most one"]),
        (["evaluate=thorough"], ["evaluate", "'thorough'", "quick, full"]),
    ],
)
@pytest.mark.usefixtures("home")
def test_an_invalid_setting_is_named_with_its_value(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        promote_rentals(*overrides)
    assert all(word in str(error.value) for word in words)


@pytest.mark.long
def test_a_rejection_exits_with_code_1_unless_the_decision_is_written_to_a_file(home: Path) -> None:
    train(home, *BETTER)
    arguments = ("housing.promote", *TABLE, "gate.model_bytes=1")
    rejected = command(home, *arguments)
    assert rejected.code == 1 and rejected.out.startswith("REJECT  housing-rentals at alias staging")
    assert "│ model_bytes" in rejected.out and "staging has no version (unchanged)" in rejected.out
    assert command(home, *arguments, f"out={home}/decision.json").code == 0
    decision = json.loads((home / "decision.json").read_text(encoding="utf-8"))
    assert (decision["verdict"], decision["version"]) == ("REJECT", None)


@pytest.fixture(scope="module")
def promotable(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """Return a home where version 1 is at staging and a better run exists."""
    directory = tmp_path_factory.mktemp("promotable")
    shutil.copy(empty_store, directory / "mlflow.db")
    create_promotable_home(directory)
    return directory


@pytest.mark.long
@pytest.mark.parametrize("step", STEPS)
def test_a_promotion_killed_at_any_step_leaves_a_working_version_and_can_be_repeated(
    promotable: Path, home: Path, step: str
) -> None:
    copy_home(promotable, home)
    state = kill_promotion(home, step)
    assert state.works
    assert state.version == ("2" if step in ("the alias has moved", "the decision is finished") else "1")
    decision = promote_rentals()
    assert (decision.verdict, decision.version) == ("HOLD" if state.version == "2" else "PROMOTE", "2")
    store = open_store(home)
    assert len(store.client.api.search_model_versions(f"name = '{MODEL}'")) == 2  # the registered version is reused
    assert all(record.decided_at and record.verdict for record in list_decisions(store, "rentals-decisions"))
    assert not store.client.api.search_runs([store.client.experiment_id("rentals-decisions")], "attributes.status = 'RUNNING'")
    assert rollback(config("rollback", "data=rentals")).version == "1"


@pytest.mark.long
def test_concurrent_promotions_wait_for_each_other(promotable: Path, home: Path) -> None:
    copy_home(promotable, home)
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
    outputs = [process.communicate(timeout=200)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sorted(re.findall(r"^(\w+)  housing-rentals", "\n".join(outputs), re.MULTILINE)) == ["HOLD", "PROMOTE"]
    assert sum("another process" in output.lower() for output in outputs) == 1
    assert len(open_store(home).client.api.search_model_versions(f"name = '{MODEL}'")) == 2


def test_the_promoted_model_predicts_a_file(home: Path) -> None:
    train(home, *BETTER)
    promote_rentals()
    frame = rentals_frame(50, seed=3)
    frame.to_csv(home / "rows.csv", index=False)
    cfg = config("predict", "data=rentals", f"file={home}/rows.csv", f"out={home}/out.csv", "source=models:/housing-rentals/1")
    assert str(predict(cfg)) == f"50 rows predicted by models:/housing-rentals/1, written to {home}/out.csv"
    predicted = pd.read_csv(home / "out.csv")
    assert score(predicted.rent_predicted.to_numpy(), frame.rent.to_numpy(), None)["rmse"] < 60
    assert (home / "out.csv").read_text().startswith("area,rooms,furnished,quarter,built,rent,rent_predicted\n")
