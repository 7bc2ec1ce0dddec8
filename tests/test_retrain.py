"""From pushed rows to a better model that is served: once for each version of the table, whatever comes in between."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from cluster import MlflowServer
from conftest import SECONDS, TABLES, Server, command, config, dvc, git, rentals_frame, serving, train, wait_for
from object_store import BUCKET, object_store, weed
from housing import tracking
from housing.config import PROJECT
from housing.promote import promote
from housing.provenance import retraining_key
from housing.tracking import Store

RENTALS = (f"--config-dir={TABLES}", "data=rentals")
QUICK = ("features=none", "refit=false", "interval=none", "figures=false", "log_model=best")


def sweep(*asked: str) -> str:
    """Say which sweep a retraining makes: quick fits."""
    return f"sweep={json.dumps([*QUICK, *asked])}"


TREES = sweep("model=decision_tree", "model.estimator.max_depth=4,8")
ACT = Path(sys.executable).parent / "act"  # runs a workflow on this machine
RUNNERS = ("ubuntu-24.04", "self-hosted", "housing")


@pytest.fixture(autouse=True)
def outside_of_github(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a job of GitHub Actions too, what these retrainings tell goes to files of their own."""
    for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


def outputs(home: Path) -> list[dict[str, str]]:
    """What each retraining told the next step."""
    lines = (home / "outputs" / "retrain-rentals.env").read_text(encoding="utf-8").splitlines()
    pairs = [line.partition("=")[::2] for line in lines]
    return [dict(pairs[start : start + 3]) for start in range(0, len(pairs), 3)]


def runs(store: Store, kind: str, experiment: str = "rentals", status: str = "FINISHED") -> int:
    """How many runs of a kind there are in a state."""
    asked = f"attributes.status = '{status}' and tags.`{tracking.KIND}` = '{kind}'"
    return len(store.client.search_runs([store.experiment(experiment)], asked))


def versions(store: Store) -> int:
    """How many versions the registry has."""
    return len(store.client.search_model_versions("name = 'housing-rentals'"))


def test_a_retraining_is_known_by_its_data_and_by_what_is_asked() -> None:
    key = retraining_key("abc", ["model=linear"])
    assert key == retraining_key("abc", ["model=linear"])
    assert len({key, retraining_key("abd", ["model=linear"]), retraining_key("abc", ["model=xgboost"])}) == 3


def test_who_comes_while_another_retrains_waits_and_is_told(home: Path) -> None:
    (home / "outputs").mkdir()
    with FileLock(home / "outputs" / ".retrain-rentals.lock"):
        ended = command(home, "housing.retrain", *RENTALS, "patience=0.1")
    assert ended.code == 1
    assert "error: another process has been retraining on table rentals for 0.1 s; try again when it is through" in ended.err
    assert not (home / "outputs" / "sweeps").exists()


@pytest.mark.long
@pytest.mark.skipif(weed() is None or not ACT.exists(), reason="weed or act is not installed: locks/s3.txt, locks/ci.txt")
def test_new_rows_that_are_pushed_are_learned_from_and_served_once(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.delenv("HOUSING_HOME", raising=False)
    with ExitStack() as stack:
        objects = stack.enter_context(object_store(tmp_path))
        for name, value in objects.environment.items():
            monkeypatch.setenv(name, value)
        shutil.copy(empty_store, tmp_path / "server.db")
        artefacts = f"s3://{BUCKET}/mlflow"
        mlflow = stack.enter_context(MlflowServer(tmp_path, f"sqlite:///{tmp_path}/server.db", artefacts, objects.environment))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.address)
        laptop = published(tmp_path)
        git(tmp_path, "clone", "--quiet", "origin.git", "ci")
        (tmp_path / "ci" / ".venv").symlink_to(PROJECT / ".venv")
        server = stack.enter_context(serving(tmp_path, "mlflow=server"))
        store = Store(mlflow.address, artifacts=None, ui="")

        with retraining_in(tmp_path / "ci"), retraining_in(tmp_path / "ci"):  # two at once: one waits, and has nothing to do
            wait_for(lambda: served(server) == "1", "the first version is served")
        first = outputs(tmp_path / "ci")
        assert sorted(told["verdict"] for told in first) == ["NOTHING NEW", "PROMOTE"]
        assert (runs(store, "sweep"), runs(store, "run"), versions(store)) == (1, 2, 1)

        add_rows(laptop)
        git(tmp_path / "ci", "pull", "--quiet")
        told = workflow(tmp_path, "push", MLFLOW_TRACKING_URI=mlflow.address)
        wait_for(lambda: served(server) == "2", "the version that knows the new rows is served")
        assert {"verdict=PROMOTE", "moved=true", "version=2"} <= set(re.findall(r"set-output:: (.*)", told))
        assert "1,650 rows, 1,500 of them new since the last retraining" in told
        assert (runs(store, "sweep"), runs(store, "run"), versions(store)) == (2, 4, 2)
        assert git(tmp_path / "ci", "status", "--porcelain") == "?? .venv\n"  # nothing to commit, so no loop

        told = workflow(tmp_path, "repository_dispatch", MLFLOW_TRACKING_URI=mlflow.address, MIN_NEW_ROWS="5")
        assert {"verdict=DRIFT, NO NEW TRUTH", "moved=false"} <= set(re.findall(r"set-output:: (.*)", told))
        assert runs(store, "sweep") == 2


def published(place: Path) -> Path:
    """A clone of the project whose table of 150 rows is in the object store, and which is pushed to a bare repository."""
    laptop = place / "laptop"
    listed = git(PROJECT, "ls-files", "-co", "--exclude-standard").splitlines()
    for name in [name for name in listed if (PROJECT / name).is_file() and not name.startswith("data/")]:
        (laptop / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, laptop / name)
    shutil.copy(TABLES / "data" / "rentals.yaml", laptop / "conf" / "data")
    conf = laptop / "conf" / "retrain.yaml"
    conf.write_text(
        re.sub(r"sweep: .*", TREES.replace("=", ": ", 1), conf.read_text(encoding="utf-8"), count=1), encoding="utf-8"
    )
    (laptop / "data").mkdir()
    rentals_frame(150).to_csv(laptop / "data" / "rentals.csv", index=False)
    git(place, "init", "--quiet", "--bare", "--initial-branch=main", "origin.git")
    git(laptop, "init", "--quiet", "--initial-branch=main")
    dvc(laptop, "remote", "modify", "s3", "url", f"s3://{BUCKET}/tables")
    dvc(laptop, "remote", "default", "s3")
    dvc(laptop, "add", "--quiet", "data/rentals.csv")
    git(laptop, "remote", "add", "origin", str(place / "origin.git"))
    push(laptop)
    return laptop


def push(laptop: Path) -> None:
    """Push content to the object store, then its name to the repository."""
    dvc(laptop, "push")
    git(laptop, "add", ".")
    git(laptop, "commit", "--quiet", "--message=rentals")
    git(laptop, "push", "--quiet", "origin", "main")


def add_rows(laptop: Path) -> None:
    """Add 1,500 rows as a user does, and push them."""
    rentals_frame(1500, seed=1).to_csv(laptop / "new.csv", index=False)
    added = subprocess.run(
        [sys.executable, "-m", "housing.ingest", "data=rentals", "file=new.csv"],
        cwd=laptop, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert "1,500 rows added" in added.stdout, added.stderr
    (laptop / "new.csv").unlink()
    push(laptop)


@contextmanager
def retraining_in(clone: Path) -> Iterator[None]:
    """Retrain in a clone, as CI does, while the block lasts and until it is through."""
    with (clone.parent / "retrain.log").open("ab") as log:
        asked = ["./scripts/retrain", "data=rentals", "mlflow=server"]
        with subprocess.Popen(asked, cwd=clone, stdout=log, stderr=log) as process:
            yield
    assert process.returncode == 0, (clone.parent / "retrain.log").read_text(encoding="utf-8")


def workflow(place: Path, event: str, **variables: str) -> str:
    """Run the job `retrain` of the workflow in the clone, as GitHub does at an event; give its log.

    Actions of others are stubs; that of AWS gives the keys of the object store, which the job has from nowhere else.
    """
    stub = place / "stub"
    stub.mkdir(exist_ok=True)
    keys = [f"echo {name}={shlex.quote(value)} >>$GITHUB_ENV" for name, value in os.environ.items() if name.startswith("AWS_")]
    step = {"run": "\n".join(keys), "shell": "bash"}
    action = {"name": "stub", "runs": {"using": "composite", "steps": [step]}}
    (stub / "action.yml").write_text(yaml.dump(action), encoding="utf-8")
    written = (place / "ci" / ".github" / "workflows" / "retrain.yml").read_text(encoding="utf-8")
    used = re.findall(r"uses: ([^.\s]+@\w+)", written)
    options = [f"--local-repository={name}={stub}" for name in used] + [f"--platform={name}=-self-hosted" for name in RUNNERS]
    known = {"TABLE": "rentals", "DVC_REMOTE_URL": f"s3://{BUCKET}/tables", **variables}
    options += [f"--var={name}={value}" for name, value in known.items()]
    options += [
        "--pull=false",
        "--action-offline-mode",
        "--env=DVC_SITE_CACHE_DIR",
        "--secret=MLFLOW_TRACKING_PASSWORD=",
    ]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MLFLOW_"))}
    environ["XDG_CACHE_HOME"] = str(place / "cache")  # where the job's copy of the clone is
    ended = subprocess.run(
        [ACT, event, "--job=retrain", "--workflows=.github/workflows/retrain.yml", *options],
        cwd=place / "ci", env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS, check=False
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def served(server: Server) -> str | None:
    """The version that a server answers with, or None where it has none yet."""
    answer = server.ask("/model")
    return str(answer.json["version"]) if answer.status == 200 else None


@pytest.mark.long
def test_a_retraining_that_is_killed_goes_on_and_does_nothing_twice(home: Path) -> None:
    store = Store(f"sqlite:///{home}/mlflow.db", artifacts=f"{home}/mlartifacts", ui="")
    asked = ("housing.retrain", *RENTALS, sweep("model=slow", "seed=1,2,3"))
    with killed_in_the_end(home, asked):
        wait_for(lambda: runs(store, "run") == 1 and runs(store, "run", status="RUNNING") == 1, "one is fitted, another is being")
    with killed_in_the_end(home, asked):
        wait_for(lambda: runs(store, "decision", "rentals-decisions", "RUNNING") == 1, "the gate judges")
    ended = command(home, *asked)
    assert ended.code == 0, ended.err
    assert "goes on" not in ended.out and "$ python -m housing.train" not in ended.out
    assert outputs(home) == [{"verdict": outputs(home)[0]["verdict"], "moved": "true", "version": "1"}]
    assert (runs(store, "run"), runs(store, "sweep"), versions(store)) == (3, 1, 1)
    assert store.version_at("housing-rentals", "staging") == "1"


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
    asked = ("housing.retrain", *RENTALS, sweep("model=decision_tree", "model.estimator.max_depth=1"))
    for more in ((), ("min_new_rows=1",)):
        begun = time.monotonic()
        ended = command(home, *asked, *more)
        assert ended.code == 0, ended.err
    assert [told["verdict"] for told in outputs(home)] == ["REJECT", "DRIFT, NO NEW TRUTH"]
    assert outputs(home)[0] == {"verdict": "REJECT", "moved": "false", "version": "1"}
    assert time.monotonic() - begun < 30
    assert "a retraining takes 1 new labelled rows" in ended.out
