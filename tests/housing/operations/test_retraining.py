"""From pushed rows to a better model that is served: once for each version of the table, whatever comes in between."""

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
from filelock import FileLock

from housing.core.errors import ConfigError
from housing.data import table as data
from housing.operations.retraining import KEY_TAG, NEW_ROWS_TAG, RETRAIN_TAGS, RETRAINED_TAG, ROWS_TAG, compute_key, retrain
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


def sweep(*asked: str) -> str:
    """Which sweep a retraining makes: quick fits."""
    return json.dumps([*QUICK, *asked])


TREES = sweep("model=decision_tree", "model.estimator.max_depth=4,8")
ACT = Path(sys.executable).parent / "act"  # runs a workflow on this machine


@pytest.fixture(autouse=True)
def outside_of_github(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a job of GitHub Actions too, what they tell goes to files of their own."""
    for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


def outputs(home: Path) -> list[dict[str, str]]:
    """What each retraining told the next step."""
    lines = (home / "outputs" / "retrain-rentals.env").read_text(encoding="utf-8").splitlines()
    pairs = [line.partition("=")[::2] for line in lines]
    return [dict(pairs[start : start + 3]) for start in range(0, len(pairs), 3)]


def runs(store: Store, kind: str, experiment: str = "rentals", status: str = "FINISHED") -> int:
    """How many runs of a kind there are in a state."""
    asked = f"attributes.status = '{status}' and tags.`{tracking.RUN_TYPE}` = '{kind}'"
    return len(store.client.api.search_runs([store.client.experiment_id(experiment)], asked))


def versions(store: Store) -> int:
    """How many versions the registry has."""
    return len(store.client.api.search_model_versions("name = 'housing-rentals'"))


def test_a_retraining_is_known_by_its_data_and_by_what_is_asked() -> None:
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
    ("override", "message"),
    [
        ("sweep_overrides=linear", "sweep_overrides is 'linear'; allowed: a list of texts"),
        ("promote_overrides=[1]", r"promote_overrides is \[1\]"),
        (
            'promote_overrides=["alias=production"]',
            r"promote_overrides is \['alias=production'\]; allowed: a list of texts that begin with none of .* alias=",
        ),
        ("min_new_rows=-1", "min_new_rows is -1; allowed: a whole number, 0 or above"),
        ("lock_timeout=abc", "lock_timeout is 'abc'; allowed: a number, 0 or above"),
    ],
)
def test_a_setting_that_cannot_work_is_named(home: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        retrain(config("retrain", "data=rentals", override))
    assert not (home / "outputs").exists()


def test_who_comes_while_another_retrains_waits_and_is_told(home: Path) -> None:
    (home / "outputs").mkdir()
    with FileLock(home / "outputs" / ".retrain-rentals.lock"):
        ended = command(home, "housing.retrain", *RENTALS, "lock_timeout=0.1")
    assert ended.code == 1
    assert "error: another process has been retraining on table rentals for 0.1 s; try again when it is through" in ended.err
    assert not (home / "outputs" / "sweeps").exists()


def opened(home: Path) -> Store:
    """The store of a home."""
    return Store(f"sqlite:///{home}/mlflow.db", artifact_root=f"{home}/mlartifacts", ui="")


def swept(home: Path, tags: Mapping[str, str], best: Outcome | None = None, rows: int = 600) -> None:
    """Leave what the finished sweep of a retraining leaves, whose only job was `best`; of the present table unless told."""
    cfg = config("retrain", "data=rentals")
    known = {KEY_TAG: compute_key(cfg, data.load(cfg.data).fingerprint), ROWS_TAG: str(rows), NEW_ROWS_TAG: "0"}
    known |= {tracking.BEST_RUN: str(best.run_id)} if best else {}
    with opened(home).runs.start("rentals", "sweep", {**RETRAIN_TAGS, **known, **tags}) as sweep:
        sweep.log_text(JOBS_FILE, json.dumps([asdict(best)] if best else []))


def test_a_table_that_has_lost_rows_waits_for_no_new_ones(home: Path) -> None:
    swept(home, {RETRAINED_TAG: "PROMOTE"})
    swept(home, {RETRAINED_TAG: "PROMOTE", KEY_TAG: "the rows that are gone"}, rows=700)
    result = retrain(config("retrain", "data=rentals"))
    assert (result.verdict, result.new_rows) == ("UP TO DATE", -100)
    assert retrain(config("retrain", "data=rentals", "min_new_rows=1")).verdict == "NO NEW LABELS"


def test_rows_are_new_since_the_last_retraining_that_came_to_its_end(home: Path) -> None:
    swept(home, {RETRAINED_TAG: "PROMOTE"})
    swept(home, {RETRAINED_TAG: "REJECT", KEY_TAG: "fewer rows"}, rows=250)
    swept(home, {KEY_TAG: "no gate has judged this one"}, rows=590)
    assert retrain(config("retrain", "data=rentals")).new_rows == 350


@pytest.mark.long
def test_the_gate_judges_the_best_of_the_sweep_at_the_alias_that_is_asked_for(home: Path) -> None:
    train(home, "model=linear", "figures=false")  # has less of any error
    best = train(home, "model=decision_tree", "figures=false", "model.estimator.max_depth=2")
    swept(home, {}, best)
    asked = ("alias=shadow", "actor=somebody", 'promote_overrides=["metric=mae","gate.smoke_test_seconds=null"]')
    ended = command(home, "housing.retrain", *RENTALS, *asked)
    assert ended.code == 0, ended.err
    (decision,) = opened(home).runs.find_latest("rentals-decisions", {tracking.ALIAS: "shadow"}, 2)
    assert (decision.tags[tracking.CHALLENGER], decision.tags[tracking.ACTOR]) == (best.run_id, "somebody")
    assert outputs(home) == [{"verdict": "PROMOTE", "moved": "true", "version": "1"}]


@pytest.mark.long
def test_a_best_run_that_is_at_the_alias_already_has_not_moved_it(home: Path) -> None:
    best = train(home, "model=decision_tree", "figures=false", "model.estimator.max_depth=2")
    promote(config("promote", "data=rentals"))
    swept(home, {}, best)
    ended = command(home, "housing.retrain", *RENTALS)
    assert ended.code == 0, ended.err
    assert outputs(home) == [{"verdict": "HOLD", "moved": "false", "version": "1"}]


@pytest.mark.long
@pytest.mark.skipif(weed() is None or not ACT.exists(), reason="weed or act is not installed: locks/s3.txt, locks/ci.txt")
def test_new_rows_that_are_pushed_are_learned_from_and_served_once(tmp_path: Path, empty_store: Path) -> None:
    with scene(tmp_path, empty_store, rentals_frame(150), ("data=rentals",), TREES) as here:
        with here.retraining(), here.retraining():  # two at once: one waits, and has nothing to do
            wait_for(lambda: here.serves("1"), "the first version is served")
        assert sorted(told["verdict"] for told in outputs(here.ci)) == ["UP TO DATE", "PROMOTE"]
        assert (runs(here.store, "sweep"), runs(here.store, "run"), versions(here.store)) == (1, 2, 1)
        assert git(here.ci, "status", "--porcelain") == "?? .venv\n"  # nothing to commit, so no loop

        here.add(rentals_frame(1500, seed=1))
        git(here.ci, "pull", "--quiet")
        told = workflow(here, "push")
        wait_for(lambda: here.serves("2"), "the version that knows the new rows is served")
        assert {"verdict=PROMOTE", "moved=true", "version=2"} <= set(re.findall(r"set-output:: (.*)", told))
        assert "1,650 rows, 1,500 of them new since the last retraining" in told
        assert (runs(here.store, "sweep"), runs(here.store, "run"), versions(here.store)) == (2, 4, 2)

        told = workflow(here, "repository_dispatch", MIN_NEW_ROWS="5")
        assert {"verdict=NO NEW LABELS", "moved=false"} <= set(re.findall(r"set-output:: (.*)", told))
        assert runs(here.store, "sweep") == 2


def workflow(here: Scene, event: str, **variables: str) -> str:
    """Run the job `retrain` of the workflow in CI's clone, as GitHub does at an event; give its log.

    Actions of others are stubs; that of AWS gives the keys of the object store, which the job has from nowhere else.
    """
    stub = here.ci.parent / "stub"
    stub.mkdir(exist_ok=True)
    keys = [f"echo {name}={shlex.quote(value)} >>$GITHUB_ENV" for name, value in os.environ.items() if name.startswith("AWS_")]
    action = {"name": "stub", "runs": {"using": "composite", "steps": [{"run": "\n".join(keys), "shell": "bash"}]}}
    (stub / "action.yml").write_text(yaml.dump(action), encoding="utf-8")
    file = ".github/workflows/retrain.yml"
    used = re.findall(r"uses: ([^.\s]+@\w+)", (here.ci / file).read_text(encoding="utf-8"))
    known = {"TABLE": "rentals", "DVC_REMOTE_URL": TABLES_AT, "MLFLOW_TRACKING_URI": here.store.client.uri, **variables}
    options = [f"--local-repository={name}={stub}" for name in used] + [f"--var={name}={value}" for name, value in known.items()]
    options += ["--platform=ubuntu-24.04=-self-hosted", "--pull=false", "--action-offline-mode", "--env=DVC_SITE_CACHE_DIR"]
    options += ["--secret=MLFLOW_TRACKING_PASSWORD="]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MLFLOW_"))}
    environ["XDG_CACHE_HOME"] = str(here.ci.parent / "cache")  # where the job's copy of the clone is
    asked = [str(ACT), event, "--job=retrain", f"--workflows={file}", *options]
    done = subprocess.run(asked, cwd=here.ci, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_a_retraining_that_is_killed_goes_on_and_does_nothing_twice(home: Path) -> None:
    store = Store(f"sqlite:///{home}/mlflow.db", artifact_root=f"{home}/mlartifacts", ui="")
    asked = ("housing.retrain", *RENTALS, f"sweep_overrides={sweep('model=slow', 'seed=1,2,3')}")
    with killed_in_the_end(home, asked):
        wait_for(lambda: runs(store, "run") == 1 and runs(store, "run", status="RUNNING") == 1, "one is fitted, another is being")
    with killed_in_the_end(home, asked):
        wait_for(lambda: runs(store, "decision", "rentals-decisions", "RUNNING") == 1, "the gate judges")
    ended = command(home, *asked)
    assert ended.code == 0, ended.err
    assert "$ python -m housing.train" not in ended.out
    assert "600 rows, 600 of them new since the last retraining" in ended.out
    assert outputs(home) == [{"verdict": outputs(home)[0]["verdict"], "moved": "true", "version": "1"}]
    assert (runs(store, "run"), runs(store, "sweep"), versions(store)) == (3, 1, 1)
    assert store.registry.version_at("housing-rentals", "staging") == "1"


@contextmanager
def killed_in_the_end(home: Path, asked: tuple[str, ...]) -> Iterator[None]:
    """A retraining that runs beside the block, and is killed with all its processes when that ends."""
    environ: Mapping[str, str] = {**os.environ, "HOUSING_HOME": str(home)}
    with (home / "retrain.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", *asked], env=environ, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(SECONDS)


@pytest.mark.long
def test_a_worse_model_is_rejected_and_drift_without_new_truth_stops_at_once(home: Path) -> None:
    train(home, "model=linear", "figures=false")
    assert promote(config("promote", "data=rentals")).verdict == "PROMOTE"
    asked = ("housing.retrain", *RENTALS, f"sweep_overrides={sweep('model=decision_tree', 'model.estimator.max_depth=1')}")
    for more in ((), ("min_new_rows=1",)):
        ended = command(home, *asked, *more)
        assert ended.code == 0, ended.err
    assert [told["verdict"] for told in outputs(home)] == ["REJECT", "NO NEW LABELS"]
    assert outputs(home)[0] == {"verdict": "REJECT", "moved": "false", "version": "1"}
    assert "a retraining takes 1 new labelled rows" in ended.out
