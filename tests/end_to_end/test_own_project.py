"""A wheel in an environment without a clone: a new project, from its table to predictions, from another working directory."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from housing.core.environment import PROJECT
from tests.support.wheel_sources import copy_sources

pytestmark = pytest.mark.long

MODULE = """
import numpy as np
from housing.data.split import random_split
from sklearn.tree import DecisionTreeRegressor


def halves(table):
    return random_split(table, test=0.5, valid=0.5, seeds=[1, 2])


def small_tree(max_depth: int, random_state: int = 0) -> DecisionTreeRegressor:
    return DecisionTreeRegressor(max_depth=max_depth, random_state=random_state)


def worst_error(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    return float(np.max(np.abs(y_true - y_pred)))
"""
MODEL = """
name: small_tree
nan_handling: impute
estimator:
  _target_: own.small_tree
  max_depth: 3
"""
FEATURES = """
defaults:
  - none
  - _self_
name: logs
blocks:
  log: {columns: [area]}
"""
BLOCK = """
import numpy as np


class Logarithms:
    is_local = False

    def __init__(self, schema, columns):
        self.input_columns = [schema.index(name) for name in columns]
        self.names = [f"log_{name}" for name in columns]
        self.arrays = {}

    def fit(self, matrix, target):
        return self

    def transform(self, matrix):
        return np.log(matrix[:, self.input_columns])
"""
LAUNCHER = """
from hydra._internal.core_plugins.basic_launcher import BasicLauncher


class Announced(BasicLauncher):
    def launch(self, job_overrides, initial_job_idx):
        print("launched by the project")
        return super().launch(job_overrides, initial_job_idx)
"""
METRIC = """
worst_error:
  _target_: own.worst_error
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel, which sees the libraries of this environment, but not the clone."""
    folder = tmp_path_factory.mktemp("wheel")
    copy_sources(folder / "source")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", str(folder / "source")]
    subprocess.run(build, check=True)
    venv.create(folder / "venv", symlinks=True)
    (packages,) = (folder / "venv" / "lib").glob("*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, f"--python={folder}/venv/bin/python", "install", "--no-deps", str(wheel)], check=True)
    return folder / "venv" / "bin"


@pytest.fixture
def run(environment: Path, tmp_path: Path) -> Callable[..., str]:
    """Run a program of the environment in a folder below the test's own, and return what it prints."""
    environ = {name: value for name, value in os.environ.items() if name not in ("HOUSING_HOME", "PYTHONPATH")}

    def run_in(folder: str, program: str, *arguments: str) -> str:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        command = [str(environment / program), *arguments]
        done = subprocess.run(command, cwd=tmp_path / folder, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run_in


def test_from_an_empty_folder_to_predictions(run: Callable[..., str], environment: Path, tmp_path: Path) -> None:
    compiled = "import housing, housing.bundle.tree_walker, housing.features.spatial_kernels; print(housing.__file__)"
    assert run(".", "python", "-c", compiled).startswith(str(environment.parent))
    assert "train          Fit one model" in run(".", "housing")

    run(".", "housing", "new", "flats")
    project = tmp_path / "flats"
    shutil.copy(PROJECT / "docs" / "tutorials" / "rentals.csv", project / "data")
    assert "conf/data/rentals.yaml" in run("flats/notebooks", "housing", "describe", "file=../data/rentals.csv", "target=rent")
    marker = project / "housing.yaml"
    marker.write_text("overrides: [data=rentals, features=logs]\nfeature_blocks: {log: blocks.Logarithms}\n", encoding="utf-8")
    (project / "blocks.py").write_text(BLOCK, encoding="utf-8")

    (project / "own.py").write_text(MODULE, encoding="utf-8")
    for name, text in (
        ("model/small_tree", MODEL),
        ("features/logs", FEATURES),
        ("metric_functions/worst_error", METRIC),
        ("split/halves", "_target_: own.halves"),
        ("hydra/launcher/announced", "_target_: hydra_plugins.own.Announced"),
    ):
        (project / "conf" / name).parent.mkdir(parents=True)
        (project / "conf" / f"{name}.yaml").write_text(text, encoding="utf-8")
    sweep = ["-m", "model=linear,small_tree", "metric_functions=worst_error", "metric=worst_error", "hydra/launcher=processes"]
    assert "worst_error" in run("flats/notebooks", "housing", "train", *sweep, "figures=false")
    one = ["train", "model=small_tree", "figures=false"]
    assert ": fitted" in run("flats/notebooks", "housing", *one)
    assert ": fitted" not in run("flats", "python", "-m", "housing.train", *one[1:])
    (project / "own.py").write_text(f"{MODULE}\n# changed\n", encoding="utf-8")
    assert ": fitted" in run("flats/notebooks", "housing", *one)
    (project / "hydra_plugins" / "own").mkdir(parents=True)
    (project / "hydra_plugins" / "own" / "__init__.py").write_text(LAUNCHER, encoding="utf-8")
    launched = run(
        "flats/notebooks", "housing", "train", "-m", "hydra/launcher=announced", "split=halves", "model=linear", "figures=false"
    )
    assert "launched by the project" in launched and "fitted in" in launched

    assert "staging is version 1" in run("flats/notebooks", "housing", "promote", "gate.min_rows=90")
    run("flats/notebooks", "housing", "predict", "file=../data/rentals.csv", "out=predicted.csv")
    assert len((project / "notebooks" / "predicted.csv").read_text(encoding="utf-8").splitlines()) == 601
    code = "from housing import Project; print(Project('..').load().features)"
    assert run("flats/notebooks", "python", "-c", code) == "['area', 'rooms', 'furnished', 'quarter', 'built']\n"
    assert {path.name for path in tmp_path.iterdir()} == {"flats"}
    assert "passed" in run("flats", "python", "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert "+overrides: []" in run("flats/notebooks", "housing", "new", "--update")


def test_a_config_file_names_a_function_of_an_installed_package(
    run: Callable[..., str], environment: Path, tmp_path: Path
) -> None:
    package = tmp_path / "package"
    (package / "flat_models").mkdir(parents=True)
    (package / "flat_models" / "__init__.py").write_text(MODULE, encoding="utf-8")
    (package / "pyproject.toml").write_text('[project]\nname = "flat-models"\nversion = "1.0"\n', encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", f"--python={environment}/python"]
    subprocess.run([*pip, "install", "--no-deps", "--no-build-isolation", str(package)], check=True)

    run(".", "housing", "new", "flats")
    shutil.copy(PROJECT / "docs" / "tutorials" / "rentals.csv", tmp_path / "flats" / "data")
    run("flats", "housing", "describe", "file=data/rentals.csv", "target=rent")
    for name, text in (("model/small_tree", MODEL), ("metric_functions/worst_error", METRIC)):
        (tmp_path / "flats" / "conf" / name).parent.mkdir()
        (tmp_path / "flats" / "conf" / f"{name}.yaml").write_text(text.replace("own.", "flat_models."), encoding="utf-8")
    words = ("data=rentals", "model=small_tree", "metric_functions=worst_error", "metric=worst_error", "figures=false")
    assert "small_tree on features geo, data rentals: fitted" in run("flats", "housing", "train", *words)
    assert "staging is version 1 (moved)" in run(
        "flats", "housing", "promote", *words[:1], "gate.smoke_test_seconds=null", "gate.min_rows=20"
    )
    run("flats", "housing", "predict", *words[:1], "file=data/rentals.csv", "out=out.csv")
