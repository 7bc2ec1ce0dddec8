"""dvc.yaml in a clone of its own: what is run, what is not run again, what is compared, what a foreign run id gives."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hydra import compose, initialize_config_dir

from housing.core.config import CONF
from housing.core.environment import PROJECT
from housing.core.errors import ConfigError, StoreError, TableError
from housing.data import table as data
from housing.prepare import prepare
from housing.promotion.promotion import promote
from housing.runs.export import export
from tests.support.commands import command, dvc, git
from tests.support.tables import TABLES, config, rentals_frame, train

MODELS = ("linear", "decision_tree", "xgboost")


def test_a_prepared_table_is_the_table_itself(home: Path) -> None:
    out = home / "rentals.parquet"
    said = prepare(config("prepare", "data=rentals", f"out={out}"))
    table, prepared = (data.load(config("train", "data=rentals", *more).data) for more in ((), (f"data.path={out}",)))
    assert prepared.fingerprint == table.fingerprint
    assert prepared.row_keys() == table.row_keys()
    counts = pd.read_parquet(out)[data.SPLIT_COLUMN].value_counts()
    assert said == f"table rentals: {counts.train} rows train, {counts.valid} rows valid, {counts.test} rows test"
    first = out.read_bytes()
    prepare(config("prepare", "data=rentals", f"out={out}"))
    assert out.read_bytes() == first
    rentals_frame().to_parquet(out)
    with pytest.raises(TableError, match="rentals.parquet is no table that housing.prepare has written"):
        data.load(config("train", "data=rentals", f"data.path={out}").data)


def test_a_run_exports_its_id_its_scores_and_its_predictions_also_when_it_is_reused(home: Path) -> None:
    asked = ("model=linear", "figures=false")
    for folder in (home / "one", home / "two"):
        outcome = train(home, *asked)
        export(config("train", "data=rentals", "features=none", *asked), outcome, folder)
    assert outcome.reused
    metrics = json.loads((home / "two" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["run_id"] == outcome.run_id
    predictions = pd.read_csv(home / "two" / "predictions.csv")
    assert ((predictions.predicted - predictions.actual) ** 2).mean() ** 0.5 == pytest.approx(metrics["rmse"])
    assert (home / "one" / "predictions.csv").read_bytes() == (home / "two" / "predictions.csv").read_bytes()
    sweep = command(home, "housing.train", "-m", f"--config-dir={TABLES}", "data=rentals", "model=linear", "export=here")
    assert sweep.code != 0
    assert "export=here is the folder of one run" in sweep.out + sweep.err


def test_the_best_of_some_files_is_judged_and_a_run_of_another_store_is_told(home: Path) -> None:
    files = []
    for model, depth in (("xgboost", 3), ("linear", None)):
        asked = [f"model={model}", "figures=false", *([f"model.estimator.max_depth={depth}"] if depth else [])]
        outcome = train(home, *asked)
        export(config("train", "data=rentals", "features=none", *asked), outcome, home / model)
        files.append((json.loads((home / model / "metrics.json").read_text(encoding="utf-8")), home / model / "metrics.json"))
    best, place = min(files, key=lambda file: float(file[0]["rmse"]))
    asked = ["data=rentals", f"metrics_files=[{files[0][1]},{files[1][1]}]"]
    assert promote(config("promote", *asked)).run_id == best["run_id"]
    with pytest.raises(ConfigError, match="run_id and candidates are given; allowed: one of them"):
        promote(config("promote", *asked, "run_id=abc"))
    place.write_text(json.dumps({**best, "run_id": "0" * 32}), encoding="utf-8")
    with pytest.raises(
        StoreError, match=rf"knows no run 0+, which {place} names: .*DVC's cache. Fit it here \(dvc repro --force\)"
    ):
        promote(config("promote", *asked))
    place.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"metrics.json.*KeyError: 'rmse'; allowed: files that housing.train export= wrote"):
        promote(config("promote", *asked))


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Path:
    """A clone with what is not committed yet, in which the pipeline is of the rentals."""
    place = tmp_path / "clone"
    listed = git(PROJECT, "ls-files", "-co", "--exclude-standard").splitlines()
    for name in [name for name in listed if (PROJECT / name).is_file()]:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, place / name)
    shutil.copy(TABLES / "data" / "rentals.yaml", place / "conf" / "data")
    shutil.copy(empty_store, place / "mlflow.db")
    rentals_frame().to_csv(place / "data" / "rentals.csv", index=False)
    (place / "dvc.yaml").write_text((place / "dvc.yaml").read_text().replace("data: california", "data: rentals"))
    monkeypatch.delenv("HOUSING_HOME", raising=False)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    git(place, "init", "--quiet")
    dvc(place, "add", "--quiet", "data/rentals.csv")
    return place


def commit(clone: Path) -> None:
    """Commit everything."""
    git(clone, "add", ".")
    git(clone, "commit", "--quiet", "--message=all")


def repro(clone: Path) -> list[str]:
    """Run the pipeline, and give the stages that ran."""
    return re.findall(r"Running stage '(.*)'", dvc(clone, "repro"))


def test_the_gate_is_asked_again_where_its_config_changes() -> None:
    asked = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["promote"]["params"]
    with initialize_config_dir(CONF, version_base="1.3"):
        choices = compose("promote", ["data=california"], return_hydra_config=True).hydra.runtime.choices
    groups = {name: choice for name, choice in choices.items() if name.partition("@")[0] in ("data", "split")}
    files = {f"conf/{name.partition('@')[0]}/{choice}.yaml".replace("california", "${data}") for name, choice in groups.items()}
    commands = {f"conf/{name}.yaml" for name in ("promote", "registry", "serve")}
    assert files | commands == {name for entry in asked for name in entry}


@pytest.mark.long
def test_the_pipeline_runs_what_has_changed_and_nothing_else(clone: Path) -> None:
    assert repro(clone) == ["prepare", *(f"train@{model}" for model in MODELS), "promote"]
    commit(clone)
    assert repro(clone) == []
    edit(clone / "conf" / "model" / "decision_tree.yaml", "max_depth: ", "max_depth: 2  # ")
    assert repro(clone) == ["train@decision_tree", "promote"]
    compared = json.loads(dvc(clone, "metrics", "diff", "--json"))
    assert set(compared) == {"outputs/pipeline/decision_tree/metrics.json"}
    assert compared["outputs/pipeline/decision_tree/metrics.json"]["rmse"]["diff"] > 0
    page = dvc(clone, "plots", "diff", "HEAD").strip().removeprefix("file://")
    assert "outputs/pipeline/decision_tree/predictions.csv" in Path(page).read_text(encoding="utf-8")
    edit(clone / "conf" / "model" / "linear.yaml", "# Ordinary", "# Plain, ordinary")
    edit(clone / "README.md", "# housing", "# houses")
    assert repro(clone) == []
    _forgets_its_store(clone)


def _forgets_its_store(clone: Path) -> None:
    """The stages' results come from DVC's cache; the store that knew their runs is gone."""
    commit(clone)
    (clone / "mlflow.db").unlink()
    edit(clone / "conf" / "promote.yaml", "margin: 0.05", "margin: 0.1")
    ended = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], cwd=clone, capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode != 0
    assert re.search(r"error: the MLflow store .* knows no run .*Fit it here \(dvc repro --force\)", ended.stdout + ended.stderr)
    assert repro_forced(clone)[-1] == "promote"


def repro_forced(clone: Path) -> list[str]:
    """Do what the message says."""
    return re.findall(r"Running stage '(.*)'", dvc(clone, "repro", "--force"))


def edit(path: Path, old: str, new: str) -> None:
    """Replace a piece of a file that is there once."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new), encoding="utf-8")
