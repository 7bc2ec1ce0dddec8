"""What a run comes from: its key, the commit, the code, the libraries."""

import functools
import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from housing.core.environment import COMMIT_TAG, PROJECT, commit, libraries
from housing.data.split import Split
from housing.data.table import Table
from housing.tracking import tags

# What may differ between two runs that give the same model: places, tracking, threads, what is kept and shown.
EXCLUDED_FROM_KEY = (
    "paths",
    "mlflow",
    "experiment_name",
    "n_threads",
    "figures",
    "log_model",
    "export",
    "force_rerun",
    "fail_fast",
    "trial",
    "tags",
)


CODE_PATHS = (
    "schema",
    "features",
    "bundle",
    "training",
    "data/split.py",
    "data/table.py",
    "runs/run.py",
)


def run_key(resolved: Mapping[str, Any], table: Table, parts: Split) -> str:
    """Give the hash of all that decides what a run gives: config, data, split, code, libraries."""
    config = {name: _without_threads(value) for name, value in resolved.items() if name not in EXCLUDED_FROM_KEY}
    config["data"] = {name: value for name, value in config["data"].items() if name not in ("path", "slice_columns")}
    key_parts = {
        "config": config,
        "data": table.fingerprint,
        "split": parts.fingerprint(),
        "code": _code_hash(),
        "libraries": libraries(),
    }
    return hashlib.sha256(json.dumps(key_parts, sort_keys=True).encode()).hexdigest()


def retraining_key(fingerprint: str, table_config: Mapping[str, Any], sweep: Sequence[str]) -> str:
    """Give the hash of all that decides what a sweep over a table gives: data, what is asked of it, config, code, libraries.

    `declared` is the table's config, which may come from elsewhere; where the table lies decides nothing. Of our own config
    every file is looked at, so the hash may differ where nothing else does; the runs are reused then.
    """
    parts: dict[str, Any] = {"data": fingerprint, "sweep": list(sweep), "code": _code_hash(), "libraries": libraries()}
    parts["table"] = {name: value for name, value in table_config.items() if name != "path"}
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
        "commit": (COMMIT_TAG, commit()[0]),
        "code that fits or scores": (tags.CODE, _code_hash()),
        "python": ("housing.python", platform.python_version()),
        **versions,
    }


@functools.lru_cache
def _code_hash() -> str:
    """Hash the project's files that fit or score: a commit of the README must not make a finished run unknown."""
    paths = [PROJECT / "housing" / name for name in CODE_PATHS]
    return _hash([file for place in paths for file in (sorted(place.rglob("*.py")) if place.is_dir() else [place])])


def _hash(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()
