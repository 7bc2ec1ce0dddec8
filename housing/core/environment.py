"""Where the project and its data lie, its commit, and the libraries that decide a result."""

import functools
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

# Threads that wait for each other must not spin: two fits side by side on two cores took 127 s instead of 14 s.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# MLflow tells its makers what is used, from a thread in each process of a sweep.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

PROJECT = Path(__file__).resolve().parents[2]


def project_home() -> Path:
    """Give the folder below which data, store and outputs lie: $HOUSING_HOME, or else the project."""
    return Path(os.environ.get("HOUSING_HOME") or PROJECT).absolute()


COMMIT_TAG = "mlflow.source.git.commit"  # a tag of MLflow's own


LIBRARIES = ("numpy", "scikit-learn", "xgboost-cpu" if sys.platform != "darwin" else "xgboost")


@functools.lru_cache
def libraries() -> dict[str, str]:
    """Give the versions of the libraries that decide what a run gives."""
    return {name: version(name) for name in LIBRARIES}


@functools.lru_cache
def commit() -> tuple[str, bool]:
    """Give the commit and whether files differ from it; ("unknown", False) where the project is not in git."""
    git = ["git", "-C", str(PROJECT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False
    return head, bool(status)
