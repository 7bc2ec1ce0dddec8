"""Environment of a run: folders of the project, its home, Git commit and versions of libraries."""

import functools
import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

# Waiting threads must not spin: with spinning, two parallel fits on two cores took 127 s instead of 14 s.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Otherwise MLflow sends usage statistics to its makers, from a thread in each process of a sweep.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

PACKAGE = Path(__file__).resolve().parents[1]
PROJECT = PACKAGE.parent  # the clone, or the folder of installed packages
IS_INSTALLED = (PACKAGE / "conf").is_dir()  # setup.py puts the config files there when it builds a wheel
CONFIG_FOLDER = (PACKAGE if IS_INSTALLED else PROJECT) / "conf"
SETUP_COMMAND = "pip install --force-reinstall 'housing[data,train]'" if IS_INSTALLED else "./scripts/setup"
MARKER = "housing.yaml"  # a folder with this file is a project of one's own
OWN_CONFIG_PROVIDER = "project"  # Hydra's name for the source of its config files
HOME_VARIABLE = "HOUSING_HOME"  # environment variable: the folder of data, store and outputs
COMMIT_TAG = "mlflow.source.git.commit"  # the name is defined by MLflow
MAX_DIFF = 200_000  # characters of the changes that are not committed, as a run keeps them
LIBRARIES = ("numpy", "scikit-learn", "xgboost-cpu" if sys.platform != "darwin" else "xgboost")

OPTIONAL_LIBRARIES = ("catboost", "lightgbm")  # the extra `boosters`


def own_project() -> Path | None:
    """Return the project of one's own: $HOUSING_HOME or the nearest folder upwards from here that has a file MARKER, or None."""
    here = Path.cwd()
    folders = [Path(os.environ.get(HOME_VARIABLE) or here).absolute(), here, *here.parents]
    return next((folder for folder in folders if (folder / MARKER).is_file()), None)


def own_config_folder() -> Path | None:
    """Return the folder for config files of the project of one's own, which need not exist, or None outside of a project."""
    project = own_project()
    return None if project is None else project / "conf"


def command_words(name: str) -> list[str]:
    """Return the words that start a command: `housing NAME` in a project of one's own, else `python -m housing.NAME`."""
    return ["python", "-m", f"housing.{name}"] if own_project() is None else ["housing", name]


def project_folder() -> Path:
    """Return the project of one's own, or else the clone, or else the working directory."""
    return own_project() or (Path.cwd() if IS_INSTALLED else PROJECT)


def project_home() -> Path:
    """Return the folder of data, store and outputs: $HOUSING_HOME, or the project if the variable is empty or unset."""
    return Path(os.environ.get(HOME_VARIABLE) or project_folder()).absolute()


@functools.lru_cache
def libraries() -> dict[str, str]:
    """Return the versions of the libraries that affect the results of a run, by name."""
    return {name: version(name) for name in LIBRARIES}


def optional_libraries(config: str) -> dict[str, str]:
    """Return the versions of the optional libraries that a config names, by name."""
    return {name: version(name) for name in OPTIONAL_LIBRARIES if f"{name}." in config and find_spec(name) is not None}


def commit() -> tuple[str, bool]:
    """Return the Git commit, and whether files differ from it; ("unknown", False) if the project is not a Git repository."""
    return _commit(project_folder())


@functools.lru_cache
def _commit(folder: Path) -> tuple[str, bool]:
    git = ["git", "-C", str(folder)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False
    return head, bool(status)


def uncommitted_changes() -> str:
    """Return what differs from the Git commit as a diff, shortened if it is long; "" if nothing does."""
    return _uncommitted_changes(project_folder()) if commit()[1] else ""


@functools.lru_cache
def _uncommitted_changes(folder: Path) -> str:
    git = ["git", "-C", str(folder)]
    try:
        untracked = subprocess.run([*git, "ls-files", "--others", "--exclude-standard"], capture_output=True, check=True).stdout
        diff = subprocess.run([*git, "diff", "HEAD"], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    names = "".join(f"# untracked: {name}\n" for name in untracked.decode(errors="replace").splitlines())
    text = names + diff.decode(errors="replace")
    return text if len(text) <= MAX_DIFF else f"{text[:MAX_DIFF]}\n# shortened to {MAX_DIFF:,} of {len(text):,} characters\n"
