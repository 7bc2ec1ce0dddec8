"""The DVC pipeline in a clone: prepared table, exported runs, promotion from metrics files, and stages that run again."""

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
from housing.data.preparation import prepare
from housing.data.settings import TableSettings
from housing.data.split import SplitSettings
from housing.data.table import SPLIT_COLUMN, load
from housing.promotion.promotion import promote
from housing.runs.export import export
from tests.support.commands import command, dvc, git
from tests.support.tables import TABLES, config, rentals_frame, train

MODELS = ("linear", "decision_tree", "xgboost")


def prepare_rentals(out: Path) -> str:
    """Write the prepared rentals."""
    cfg = config("prepare", "data=rentals", f"out={out}")
    return str(prepare(TableSettings.from_config(cfg.data), SplitSettings.from_config(cfg.split), Path(cfg.out)))


def test_a_prepared_table_equals_its_source(home: Path) -> None:
    out = home / "rentals.parquet"
    counts = prepare_rentals(out)
    table, prepared = (load(config("train", "data=rentals", *path).data) for path in ((), (f"data.path={out}",)))
    assert prepared.fingerprint == table.fingerprint
    assert prepared.row_keys() == table.row_keys()
    parts = pd.read_parquet(out)[SPLIT_COLUMN].value_counts()
    assert counts == f"table rentals: {parts.train} train, {parts.valid} valid, {parts.test} test rows"
    first = out.read_bytes()
    prepare_rentals(out)
    assert out.read_bytes() == first
    rentals_frame().assign(**{SPLIT_COLUMN: "train"}).to_parquet(out)
    with pytest.raises(TableError, match="rentals.parquet was not written by housing.prepare"):
        load(config("train", "data=rentals", f"data.path={out}").data)


def test_a_reused_run_exports_the_same_scores_and_predictions(home: Path) -> None:
    overrides = ("model=linear", "figures=false")
    for folder in (home / "first", home / "second"):
        outcome = train(home, *overrides)
        export(config("train", "data=rentals", "features=none", *overrides), outcome, folder)
    assert outcome.reused
    metrics = json.loads((home / "second" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["run_id"] == outcome.run_id
    predictions = pd.read_csv(home / "second" / "predictions.csv")
    assert ((predictions.predicted - predictions.actual) ** 2).mean() ** 0.5 == pytest.approx(metrics["rmse"])
    assert (home / "first" / "predictions.csv").read_bytes() == (home / "second" / "predictions.csv").read_bytes()
    sweep = command(home, "housing.train", "-m", f"--config-dir={TABLES}", "data=rentals", "model=linear", "export=here")
    assert sweep.code != 0
    assert "export=here is for a single run" in sweep.out + sweep.err


def test_the_best_of_several_metrics_files_is_promoted_and_an_unknown_run_is_an_error(home: Path) -> None:
    files = []
    for model, depth in (("xgboost", 3), ("linear", None)):
        overrides = [f"model={model}", "figures=false", *([f"model.estimator.max_depth={depth}"] if depth else [])]
        outcome = train(home, *overrides)
        export(config("train", "data=rentals", "features=none", *overrides), outcome, home / model)
        files.append((json.loads((home / model / "metrics.json").read_text(encoding="utf-8")), home / model / "metrics.json"))
    best, path = min(files, key=lambda file: float(file[0]["rmse"]))
    overrides = ["data=rentals", f"metrics_files=[{files[0][1]},{files[1][1]}]"]
    assert promote(config("promote", *overrides)).run_id == best["run_id"]
    with pytest.raises(ConfigError, match="run_id and metrics_files"):
        promote(config("promote", *overrides, "run_id=abc"))
    path.write_text(json.dumps({**best, "run_id": "0" * 32}), encoding="utf-8")
    with pytest.raises(StoreError, match=rf"has no run 0+.*{path} names.*\(dvc repro --force\)"):
        promote(config("promote", *overrides))
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"metrics.json.*KeyError: 'rmse'"):
        promote(config("promote", *overrides))


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Path:
    """Return a clone of the working tree, uncommitted files included, with a pipeline for the rentals."""
    folder = tmp_path / "clone"
    files = git(PROJECT, "ls-files", "-co", "--exclude-standard").splitlines()
    for name in [name for name in files if (PROJECT / name).is_file()]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, folder / name)
    shutil.copy(TABLES / "data" / "rentals.yaml", folder / "conf" / "data")
    shutil.copy(empty_store, folder / "mlflow.db")
    rentals_frame().to_csv(folder / "data" / "rentals.csv", index=False)
    (folder / "dvc.yaml").write_text((folder / "dvc.yaml").read_text().replace("data: california", "data: rentals"))
    monkeypatch.delenv("HOUSING_HOME", raising=False)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    git(folder, "init", "--quiet")
    dvc(folder, "add", "--quiet", "data/rentals.csv")
    return folder


def commit(clone: Path) -> None:
    """Commit everything."""
    git(clone, "add", ".")
    git(clone, "commit", "--quiet", "--message=all")


def repro(clone: Path) -> list[str]:
    """Run the pipeline, and return the stages that ran."""
    return re.findall(r"Running stage '(.*)'", dvc(clone, "repro"))


def test_the_promote_stage_depends_on_all_configs_of_the_gate() -> None:
    parameters = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["promote"]["params"]
    with initialize_config_dir(CONF, version_base="1.3"):
        choices = compose("promote", ["data=california"], return_hydra_config=True).hydra.runtime.choices
    groups = {name: choice for name, choice in choices.items() if name.partition("@")[0] in ("data", "split")}
    files = {f"conf/{name.partition('@')[0]}/{choice}.yaml".replace("california", "${data}") for name, choice in groups.items()}
    commands = {f"conf/{name}.yaml" for name in ("promote", "registry", "serve")}
    assert files | commands == {name for entry in parameters for name in entry}


@pytest.mark.long
def test_the_pipeline_runs_only_changed_stages(clone: Path) -> None:
    assert repro(clone) == ["prepare", *(f"train@{model}" for model in MODELS), "promote"]
    commit(clone)
    assert repro(clone) == []
    edit(clone / "conf" / "model" / "decision_tree.yaml", "max_depth: ", "max_depth: 2  # ")
    assert repro(clone) == ["train@decision_tree", "promote"]
    differences = json.loads(dvc(clone, "metrics", "diff", "--json"))
    assert set(differences) == {"outputs/pipeline/decision_tree/metrics.json"}
    assert differences["outputs/pipeline/decision_tree/metrics.json"]["rmse"]["diff"] > 0
    page = dvc(clone, "plots", "diff", "HEAD").strip().removeprefix("file://")
    assert "outputs/pipeline/decision_tree/predictions.csv" in Path(page).read_text(encoding="utf-8")
    edit(clone / "conf" / "model" / "linear.yaml", "# Ordinary", "# Plain, ordinary")
    edit(clone / "README.md", "# housing", "# houses")
    assert repro(clone) == []
    assert_lost_store_is_reported(clone)


def assert_lost_store_is_reported(clone: Path) -> None:
    """Delete the MLflow store while the results of the stages remain in DVC's cache."""
    commit(clone)
    (clone / "mlflow.db").unlink()
    edit(clone / "conf" / "promote.yaml", "max_regression: 0.05", "max_regression: 0.1")
    process = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], cwd=clone, capture_output=True, text=True, check=False, timeout=300
    )
    assert process.returncode != 0
    assert re.search(r"error: There is no MLflow store at .*\(dvc repro --force\)", process.stdout + process.stderr)
    assert repro_forced(clone)[-1] == "promote"


def repro_forced(clone: Path) -> list[str]:
    """Run the command that the error message names."""
    return re.findall(r"Running stage '(.*)'", dvc(clone, "repro", "--force"))


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text that occurs once in a file."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new), encoding="utf-8")
