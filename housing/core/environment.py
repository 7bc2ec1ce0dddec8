"""Environment of a run: project folder, home folder, Git commit and versions of libraries."""

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

PROJECT = Path(__file__).resolve().parents[2]
HOME_VARIABLE = "HOUSING_HOME"  # environment variable: the folder of data, store and outputs
COMMIT_TAG = "mlflow.source.git.commit"  # the name is defined by MLflow
LIBRARIES = ("numpy", "scikit-learn", "xgboost-cpu" if sys.platform != "darwin" else "xgboost")

OPTIONAL_LIBRARIES = ("catboost", "lightgbm")  # the extra `boosters`


def project_home() -> Path:
    """Return the folder of data, store and outputs: $HOUSING_HOME, or the project if the variable is empty or unset."""
    return Path(os.environ.get(HOME_VARIABLE) or PROJECT).absolute()


@functools.lru_cache
def libraries() -> dict[str, str]:
    """Return the versions of the libraries that affect the results of a run, by name."""
    return {name: version(name) for name in LIBRARIES}


def optional_libraries(config: str) -> dict[str, str]:
    """Return the versions of the optional libraries that a config names, by name."""
    return {name: version(name) for name in OPTIONAL_LIBRARIES if f"{name}." in config and find_spec(name) is not None}


@functools.lru_cache
def commit() -> tuple[str, bool]:
    """Return the Git commit, and whether files differ from it; ("unknown", False) if the project is not a Git repository."""
    git = ["git", "-C", str(PROJECT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False
    return head, bool(status)
