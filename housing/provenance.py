"""What a run comes from: its key, the commit, the code, the libraries."""

import functools
import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from housing import tracking
from housing.config import PROJECT
from housing.data import Table
from housing.split import Split

# What may differ between two runs that give the same model: places, tracking, threads, what is kept and shown.
NOT_IN_KEY = (
    "paths",
    "mlflow",
    "experiment_name",
    "threads",
    "figures",
    "log_model",
    "export",
    "rerun",
    "fail_fast",
    "trial",
    "tags",
)
COMMIT = "mlflow.source.git.commit"  # a tag of MLflow's own
LIBRARIES = ("numpy", "scikit-learn", "xgboost-cpu" if sys.platform != "darwin" else "xgboost")
CODE = (
    "schema.py",
    "features",
    "ensemble.py",
    "bundle.py",
    "graph.py",
    "onnx_file.py",
    "trees.py",
    "walker.c",
    "interval.py",
    "data.py",
    "split.py",
    "models.py",
    "convert.py",
    "scores.py",
    "medoids.py",
    "build.py",
    "run.py",
)


def run_key(resolved: Mapping[str, Any], table: Table, parts: Split) -> str:
    """Give the hash of all that decides what a run gives: config, data, split, code, libraries."""
    config = {name: _without_threads(value) for name, value in resolved.items() if name not in NOT_IN_KEY}
    config["data"] = {name: value for name, value in config["data"].items() if name not in ("path", "slices")}
    parts_of_key = {
        "config": config,
        "data": table.fingerprint,
        "split": parts.fingerprint(),
        "code": _code_hash(),
        "libraries": libraries(),
    }
    return hashlib.sha256(json.dumps(parts_of_key, sort_keys=True).encode()).hexdigest()


def retraining_key(fingerprint: str, declared: Mapping[str, Any], sweep: Sequence[str]) -> str:
    """Give the hash of all that decides what a sweep over a table gives: data, what is asked of it, config, code, libraries.

    `declared` is the table's config, which may come from elsewhere; where the table lies decides nothing. Of our own config
    every file is looked at, so the hash may differ where nothing else does; the runs are reused then.
    """
    parts: dict[str, Any] = {"data": fingerprint, "sweep": list(sweep), "code": _code_hash(), "libraries": libraries()}
    parts["table"] = {name: value for name, value in declared.items() if name != "path"}
    parts["config"] = _hash(sorted((PROJECT / "conf").rglob("*.yaml")))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _without_threads(node: Any) -> Any:
    """Give a part of a config without what its estimators are told of threads."""
    if not isinstance(node, Mapping):
        return node
    return {name: _without_threads(value) for name, value in node.items() if name != "n_jobs"}


def provenance() -> dict[str, tuple[str, str]]:
    """Give what a run is made with besides config and data: for each thing the tag of a run, and its value here and now."""
    versions = {name: (f"housing.{name}", found) for name, found in libraries().items()}
    return {
        "commit": (COMMIT, commit()[0]),
        "code that fits or scores": (tracking.CODE, _code_hash()),
        "python": ("housing.python", platform.python_version()),
        **versions,
    }


@functools.lru_cache
def libraries() -> dict[str, str]:
    """Give the versions of the libraries that decide what a run gives."""
    return {name: version(name) for name in LIBRARIES}


@functools.lru_cache
def _code_hash() -> str:
    """Hash the project's files that fit or score: a commit of the README must not make a finished run unknown."""
    places = [PROJECT / "housing" / name for name in CODE]
    return _hash([file for place in places for file in (sorted(place.rglob("*.py")) if place.is_dir() else [place])])


def _hash(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


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
