"""Retraining: each version of the table is learned from, promoted and served exactly once, despite interruptions."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from housing.core.errors import ConfigError
from housing.core.locks import file_lock
from housing.data import table as data
from housing.operations.retraining import (
    KEY_TAG,
    NEW_ROWS_TAG,
    RETRAIN_TAGS,
    RETRAINED_TAG,
    ROWS_TAG,
    RetrainSettings,
    compute_key,
    retrain,
)
from housing.promotion.promotion import promote
from housing.runs.outcome import Outcome
from housing.runs.run_key import retraining_key
from housing.sweeps.sweep import JOBS_FILE
from housing.tracking import tags as tracking
from housing.tracking.store import Store
from tests.support.commands import command, git
from tests.support.object_store import weed
from tests.support.retraining_environment import TABLES_AT, Scene, scene
from tests.support.tables import TABLES, config, rentals_frame, train
from tests.support.waiting import SECONDS, wait_for

RENTALS = (f"--config-dir={TABLES}", "data=rentals")
QUICK = ("features=none", "refit=false", "interval=none", "figures=false", "log_model=best")


def sweep_overrides(*overrides: str) -> str:
    """Return the value of `sweep_overrides` for a sweep of quick fits."""
    return json.dumps([*QUICK, *overrides])


TREES = sweep_overrides("model=decision_tree", "model.estimator.max_depth=4,8")
ACT = Path(sys.executable).parent / "act"  # runs GitHub workflows locally


@pytest.fixture(autouse=True)
def outside_github(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write summaries and outputs to the default files, even in a job of GitHub Actions."""
    for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


def outputs(home: Path) -> list[dict[str, str]]:
    """Return the output values of each retraining."""
    lines = (home / "outputs" / "retrain-rentals.env").read_text(encoding="utf-8").splitlines()
    pairs = [line.partition("=")[::2] for line in lines]
    return [dict(pairs[start : start + 3]) for start in range(0, len(pairs), 3)]


def count_runs(store: Store, run_type: str, experiment: str = "rentals", status: str = "FINISHED") -> int:
    """Return the number of runs of a type in a state."""
    condition = f"attributes.status = '{status}' and tags.`{tracking.RUN_TYPE}` = '{run_type}'"
    return len(store.client.api.search_runs([store.client.experiment_id(experiment)], condition))


def count_versions(store: Store) -> int:
    """Return the number of versions in the registry."""
    return len(store.client.api.search_model_versions("name = 'housing-rentals'"))


def test_the_key_of_a_retraining_depends_on_data_table_config_and_overrides() -> None:
    table, linear = {"name": "t", "path": "here"}, ["model=linear"]
    key = retraining_key("abc", table, linear)
    assert key == retraining_key("abc", {**table, "path": "elsewhere"}, linear)
    others = {
        retraining_key("abd", table, linear),
        retraining_key("abc", table, ["model=xgboost"]),
        retraining_key("abc", {**table, "slice_columns": ["a"]}, linear),
    }
    assert len({key, *others}) == 4


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("sweep_overrides=linear", ["sweep_overrides", "'linear'", "list"]),
        ("promote_overrides=[1]", ["promote_overrides", "[1]"]),
        ('promote_overrides=["alias=production"]', ["promote_overrides", "['alias=production']", "alias="]),
        ("min_new_rows=-1", ["min_new_rows", "-1"]),
        ("lock_timeout_seconds=abc", ["lock_timeout_seconds", "'abc'"]),
    ],
)
def test_an_invalid_setting_is_named_with_its_value(home: Path, override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        retrain(config("retrain", "data=rentals", override))
    assert all(word in str(error.value) for word in words)
    assert not (home / "outputs").exists()


def test_a_second_retraining_waits_and_then_ends_with_an_error(home: Path) -> None:
    (home / "outputs").mkdir()
    with file_lock(home / "outputs" / ".retrain-rentals.lock"):
        result = command(home, "housing.retrain", *RENTALS, "lock_timeout_seconds=0.1")
    assert result.code == 1
    assert "Another process has been retraining on table rentals for over 0.1 s" in result.err
    assert not (home / "outputs" / "sweeps").exists()


def open_store(home: Path) -> Store:
    """Return the store of a home."""
    return Store(f"sqlite:///{home}/mlflow.db", artifact_root=f"{home}/mlartifacts", ui="")


def log_sweep(home: Path, tags: Mapping[str, str], best: Outcome | None = None, rows: int = 600) -> None:
    """Log a finished sweep of a retraining on the current table, whose only job was `best`."""
    settings = RetrainSettings.from_config(config("retrain", "data=rentals"))
    key = compute_key(settings, data.load(settings.data).fingerprint)
    sweep_tags = {KEY_TAG: key, ROWS_TAG: str(rows), NEW_ROWS_TAG: "0"}
    sweep_tags |= {tracking.BEST_RUN: str(best.run_id)} if best else {}
    with open_store(home).runs.start("rentals", "sweep", {**RETRAIN_TAGS, **sweep_tags, **tags}) as sweep:
        sweep.log_text(JOBS_FILE, json.dumps([asdict(best)] if best else []))


def test_lost_rows_count_as_negative_new_rows(home: Path) -> None:
    log_sweep(home, {RETRAINED_TAG: "PROMOTE"})
    log_sweep(home, {RETRAINED_TAG: "PROMOTE", KEY_TAG: "more rows"}, rows=700)
    result = retrain(config("retrain", "data=rentals"))
    assert (result.verdict, result.new_rows) == ("UP TO DATE", -100)
    assert retrain(config("retrain", "data=rentals", "min_new_rows=1")).verdict == "NO NEW LABELS"


def test_new_rows_count_from_the_last_finished_retraining(home: Path) -> None:
    log_sweep(home, {RETRAINED_TAG: "PROMOTE"})
    log_sweep(home, {RETRAINED_TAG: "REJECT", KEY_TAG: "fewer rows"}, rows=250)
    log_sweep(home, {KEY_TAG: "unfinished"}, rows=590)
    assert retrain(config("retrain", "data=rentals")).new_rows == 350


@pytest.mark.long
def test_the_gate_judges_the_best_run_of_the_sweep_at_the_configured_alias(home: Path) -> None:
    train(home, "model=linear", "figures=false")  # a better run that is not part of the sweep
    best = train(home, "model=decision_tree", "figures=false", "model.estimator.max_depth=2")
    log_sweep(home, {}, best)
    arguments = (
        "+aliases.shadow=null",
        "alias=shadow",
        "actor=somebody",
        'promote_overrides=["+aliases.shadow=null","metric=mae","gate.smoke_test_seconds=null"]',
    )
    result = command(home, "housing.retrain", *RENTALS, *arguments)
    assert result.code == 0, result.err
    (decision,) = open_store(home).runs.find_latest("rentals-decisions", {tracking.ALIAS: "shadow"}, 2)
    assert (decision.tags[tracking.CHALLENGER], decision.tags[tracking.ACTOR]) == (best.run_id, "somebody")
    assert outputs(home) == [{"verdict": "PROMOTE", "moved": "true", "version": "1"}]


@pytest.mark.long
def test_a_best_run_that_is_already_at_the_alias_does_not_count_as_moved(home: Path) -> None:
    best = train(home, "model=decision_tree", "figures=false", "model.estimator.max_depth=2")
    promote(config("promote", "data=rentals"))
    log_sweep(home, {}, best)
    result = command(home, "housing.retrain", *RENTALS)
    assert result.code == 0, result.err
    assert outputs(home) == [{"verdict": "HOLD", "moved": "false", "version": "1"}]


@pytest.mark.long
@pytest.mark.skipif(weed() is None or not ACT.exists(), reason="weed or act is not installed: locks/s3.txt, locks/ci.txt")
def test_pushed_rows_are_learned_from_and_served_once(tmp_path: Path, empty_store: Path) -> None:
    with scene(tmp_path, empty_store, rentals_frame(600), ("data=rentals",), TREES) as scene_:
        with scene_.retraining(), scene_.retraining():  # the second one waits, and then has nothing to do
            wait_for(lambda: scene_.serves("1"), "version 1 is served", 600)
        assert sorted(values["verdict"] for values in outputs(scene_.ci)) == ["PROMOTE", "UP TO DATE"]
        assert (count_runs(scene_.store, "sweep"), count_runs(scene_.store, "run"), count_versions(scene_.store)) == (1, 2, 1)
        assert git(scene_.ci, "status", "--porcelain") == "?? .venv\n"  # no commit, so the workflow does not trigger itself

        scene_.add(rentals_frame(1500, seed=1))
        git(scene_.ci, "pull", "--quiet")
        log = workflow(scene_, "push")
        wait_for(lambda: scene_.serves("2"), "version 2, fitted on the new rows, is served", 600)
        assert {"verdict=PROMOTE", "moved=true", "version=2"} <= set(re.findall(r"set-output:: (.*)", log))
        assert "2,100 rows, 1,500 new since the last retraining" in log
        assert (count_runs(scene_.store, "sweep"), count_runs(scene_.store, "run"), count_versions(scene_.store)) == (2, 4, 2)

        log = workflow(scene_, "repository_dispatch", MIN_NEW_ROWS="5")
        assert {"verdict=NO NEW LABELS", "moved=false"} <= set(re.findall(r"set-output:: (.*)", log))
        assert count_runs(scene_.store, "sweep") == 2


def workflow(scene_: Scene, event: str, **variables: str) -> str:
    """Run the job `retrain` of the workflow in CI's clone, as GitHub does for an event, and return its log.

    Third-party actions are replaced by a stub, which also provides the keys of the object store, as the action of AWS does.
    """
    stub = scene_.ci.parent / "stub"
    stub.mkdir(exist_ok=True)
    keys = [f"echo {name}={shlex.quote(value)} >>$GITHUB_ENV" for name, value in os.environ.items() if name.startswith("AWS_")]
    action = {"name": "stub", "runs": {"using": "composite", "steps": [{"run": "\n".join(keys), "shell": "bash"}]}}
    (stub / "action.yml").write_text(yaml.dump(action), encoding="utf-8")
    file = ".github/workflows/retrain.yml"
    used = re.findall(r"uses: ([^.\s]+@\w+)", (scene_.ci / file).read_text(encoding="utf-8"))
    values = {"TABLE": "rentals", "DVC_REMOTE_URL": TABLES_AT, "MLFLOW_TRACKING_URI": scene_.store.client.uri, **variables}
    options = [f"--local-repository={name}={stub}" for name in used] + [f"--var={name}={value}" for name, value in values.items()]
    options += ["--platform=ubuntu-24.04=-self-hosted", "--pull=false", "--action-offline-mode", "--env=DVC_SITE_CACHE_DIR"]
    options += ["--secret=MLFLOW_TRACKING_PASSWORD="]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MLFLOW_"))}
    environ["XDG_CACHE_HOME"] = str(scene_.ci.parent / "cache")  # holds the job's copy of the clone
    arguments = [str(ACT), event, "--job=retrain", f"--workflows={file}", *options]
    process = subprocess.run(arguments, cwd=scene_.ci, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.mark.long
def test_a_killed_retraining_resumes_and_repeats_nothing(home: Path) -> None:
    store = Store(f"sqlite:///{home}/mlflow.db", artifact_root=f"{home}/mlartifacts", ui="")
    arguments = ("housing.retrain", *RENTALS, f"sweep_overrides={sweep_overrides('model=slow', 'seed=1,2,3')}")
    with killed_at_exit(home, arguments):
        wait_for(
            lambda: count_runs(store, "run") == 1 and count_runs(store, "run", status="RUNNING") == 1,
            "one job is finished and another is running",
        )
    with killed_at_exit(home, arguments):
        wait_for(lambda: count_runs(store, "decision", "rentals-decisions", "RUNNING") == 1, "the gate is running")
    result = command(home, *arguments)
    assert result.code == 0, result.err
    assert "$ python -m housing.train" not in result.out
    assert "600 rows, 600 new since the last retraining" in result.out
    assert outputs(home) == [{"verdict": outputs(home)[0]["verdict"], "moved": "true", "version": "1"}]
    assert (count_runs(store, "run"), count_runs(store, "sweep"), count_versions(store)) == (3, 1, 1)
    assert store.registry.version_at("housing-rentals", "staging") == "1"


@contextmanager
def killed_at_exit(home: Path, arguments: tuple[str, ...]) -> Iterator[None]:
    """Run a retraining in the background, and kill its process group when the block ends."""
    environ: Mapping[str, str] = {**os.environ, "HOUSING_HOME": str(home)}
    with (home / "retrain.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], env=environ, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(SECONDS)


@pytest.mark.long
def test_a_worse_model_is_rejected_and_a_table_without_new_labels_is_skipped(home: Path) -> None:
    train(home, "model=linear", "figures=false")
    assert promote(config("promote", "data=rentals")).verdict == "PROMOTE"
    arguments = (
        "housing.retrain",
        *RENTALS,
        f"sweep_overrides={sweep_overrides('model=decision_tree', 'model.estimator.max_depth=1')}",
    )
    for more in ((), ("min_new_rows=1",)):
        result = command(home, *arguments, *more)
        assert result.code == 0, result.err
    assert [values["verdict"] for values in outputs(home)] == ["REJECT", "NO NEW LABELS"]
    assert outputs(home)[0] == {"verdict": "REJECT", "moved": "false", "version": "1"}
    assert "a retraining needs at least 1 new labeled rows" in result.out
