"""The finished wheel in a fresh environment: from an empty folder to predictions, on other versions of Python."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from housing.core.environment import PROJECT
from tests.support.wheel_sources import copy_sources

pytestmark = pytest.mark.long

UV = Path(sys.prefix) / "bin" / "uv"
COMPILED = "import housing.bundle.tree_walker, housing.features.spatial_kernels"
QUICK = ("features=none", "figures=false")
STEPS = (
    (("describe", "file=data/rentals.csv", "target=rent"), "conf/data/rentals.yaml"),
    (("train", "-m", "data=rentals", "model=linear,decision_tree", *QUICK), "decision_tree"),
    (("promote", "data=rentals", "gate.smoke_test_seconds=null", "gate.min_rows=90", "evaluate=quick"), "staging is version 1"),
    (("predict", "data=rentals", "file=data/rentals.csv", "out=predicted.csv"), "predicted.csv"),
)


def find_interpreters() -> dict[str, Path]:
    """Return an interpreter for each further version of Python that this machine has; without any, the present one."""
    found: dict[str, Path] = {}
    for version in ("3.12", "3.13"):
        on_path = [Path(path) for path in [shutil.which(f"python{version}")] if path is not None]
        of_pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
        usable = [path for path in (*of_pyenv, *on_path) if is_version(path, version)]
        if usable:
            found[version] = usable[0]
    return found or {"present": Path(sys.executable)}


def is_version(python: Path, version: str) -> bool:
    """Return whether an interpreter starts and has this version; a shim of pyenv may not."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.returncode == 0 and done.stdout.strip() == version


INTERPRETERS = find_interpreters()


def run(command: tuple[object, ...], folder: Path) -> str:
    """Run a program in a folder, without variables that lead to the clone, and return what it prints."""
    unwanted = ("HOUSING_HOME", "PYTHONPATH", "VIRTUAL_ENV")
    environ = {name: value for name, value in os.environ.items() if name not in unwanted}
    done = subprocess.run(list(map(str, command)), cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("version", INTERPRETERS)
def test_from_an_empty_folder_to_predictions_with_the_wheel(version: str, tmp_path: Path) -> None:
    interpreter, is_newest = INTERPRETERS[version], version == list(INTERPRETERS)[-1]
    copy_sources(tmp_path / "source")
    run((UV, "build", "--quiet", "--wheel", "--python", interpreter, "--out-dir", tmp_path, tmp_path / "source"), tmp_path)
    [wheel] = tmp_path.glob("*.whl")
    programs = tmp_path / "environment" / "bin"
    run((UV, "venv", "--quiet", "--python", interpreter, programs.parent), tmp_path)
    exact = ("--constraint", PROJECT / "locks" / "train.txt")  # a new release of a library must not fail this test
    run((UV, "pip", "install", "--quiet", "--python", programs / "python", *exact, f"{wheel}[train]"), tmp_path)
    assert run((programs / "python", "-c", COMPILED), tmp_path) == ""

    run((programs / "housing", "new", "flats"), tmp_path)
    project = tmp_path / "flats"
    shutil.copy(PROJECT / "docs" / "tutorials" / "rentals.csv", project / "data")
    for arguments, expected in STEPS if is_newest else STEPS[:2]:  # the rest depends least on the version
        assert expected in run((programs / "housing", *arguments), project), arguments
    assert not is_newest or len((project / "predicted.csv").read_text(encoding="utf-8").splitlines()) == 601
