"""One run: a table goes in, a scored and tracked bundle comes out."""

import functools
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from housing import data, figures, models, tracking
from housing.bundle import Bundle
from housing.config import PROJECT
from housing.data import Table
from housing.records import Outcome
from housing.split import Split, split
from housing.tracking import Run, Store

# What may differ between two runs that give the same model: places, tracking, threads, what is kept and shown.
NOT_IN_KEY = ("paths", "mlflow", "experiment_name", "threads", "figures", "log_model", "rerun", "tags")
NOT_A_PARAM = ("data.columns", "data.places", "data.ratios", "data.source")  # in config.yaml; too long for a table of runs
LIBRARIES = ("numpy", "scikit-learn", "xgboost-cpu" if sys.platform != "darwin" else "xgboost")
CODE = ("schema.py", "features", "bundle.py", "data.py", "split.py", "models.py", "run.py")
BUNDLE, CONFIG, FIGURES = "bundle", "config", "figures"  # in a job's folder


@dataclass(frozen=True)
class Job:
    """Where a run stands in Hydra: what was asked on the command line, and the folder for its files."""

    overrides: list[str]
    folder: Path
    parent: str | None = None  # the run of the sweep it belongs to


def run(cfg: DictConfig, job: Job) -> Outcome:
    """Fit, score and track what a config describes, or give the outcome of the same run where one is finished.

    Test rows are not touched. A failure is in MLflow with its traceback, and in the job's folder, before it is raised.
    """
    Outcome(job.overrides, "RUNNING").write(job.folder)  # all that a sweep finds of a job that is killed
    try:
        outcome = _run(cfg, job, tracking.connect(cfg.mlflow))
    except Exception as error:
        Outcome(job.overrides, "FAILED", error=f"{type(error).__name__}: {error}").write(job.folder)
        raise
    except BaseException:
        Outcome(job.overrides, "KILLED", error="interrupted; the same command goes on from here").write(job.folder)
        raise
    outcome.write(job.folder)
    return outcome


def _run(cfg: DictConfig, job: Job, store: Store) -> Outcome:
    name, tags = f"{cfg.model.name} {cfg.features.name}", _tags(cfg, job)
    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    try:
        models.require_comparable(cfg.metric)
        table = data.load(cfg.data, cfg.limit)
        parts = split(table, cfg.split)
        key = run_key(resolved, table, parts)
    except Exception:
        store.open_run(cfg.experiment_name, name, tags).fail()  # so that it is seen there too
        raise
    found = None if cfg.rerun else store.finished(cfg.experiment_name, key)
    if found is not None:
        return Outcome(job.overrides, "FINISHED", found.id, found.run.link, True, found.metrics)
    tags |= {tracking.KEY: key, tracking.DATA: table.fingerprint, tracking.SPLIT: parts.fingerprint()}
    with store.run(cfg.experiment_name, name, tags) as opened:
        opened.files(_write_config(resolved, job), CONFIG)  # before anything can fail
        opened.log(params=_params(resolved))
        metrics = _fit_and_log(cfg, job, table, parts, opened)
    return Outcome(job.overrides, "FINISHED", opened.id, opened.link, False, metrics)


def _fit_and_log(cfg: DictConfig, job: Job, table: Table, parts: Split, opened: Run) -> dict[str, float]:
    """Fit and log; in a sweep the bundle stays in the job's folder, for the sweep's end."""
    alone = job.parent is None
    bundle, metrics = build(cfg, table, parts, opened.id)
    bundle.write(job.folder / BUNDLE)
    opened.log(metrics=metrics)
    if alone or cfg.log_model == "all":
        opened.bundle(job.folder / BUNDLE, table.schema)
    if alone and cfg.figures:
        opened.files(figures.draw(bundle, table, parts.valid, job.folder / FIGURES), FIGURES)
    if alone:
        shutil.rmtree(job.folder / BUNDLE)  # the store has it
    return metrics


def build(cfg: DictConfig, table: Table, parts: Split, run_id: str) -> tuple[Bundle, dict[str, float]]:
    """Fit on the training rows and give the bundle with its validation metrics; tracks nothing."""
    fitted = models.fit(cfg, table, parts.train)
    bundle = models.to_bundle(fitted, table, parts, cfg.parity, cfg.golden_rows)
    valid = table.matrix[parts.valid]
    metrics = {
        **models.score(bundle.predict(valid), table.target[parts.valid]),
        "fit_seconds": fitted.seconds,
        **models.cost(bundle, valid),
    }
    bundle.card = card(cfg, table, parts, run_id, metrics)
    return bundle, metrics


def card(cfg: DictConfig, table: Table, parts: Split, run_id: str, metrics: Mapping[str, float]) -> dict[str, Any]:
    """Give what the run knew: the model's name, its metrics, its data, its code."""
    return {
        "model": cfg.model.name,
        "features": cfg.features.name,
        "run_id": run_id,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "metrics": models.rounded(metrics),
        "data": {"name": cfg.data.name, "fingerprint": table.fingerprint, "rows": len(table)},
        "rows": {"train": len(parts.train), "valid": len(parts.valid), "test": len(parts.test)},
        "split": parts.fingerprint(),
        "code": dict(zip(("commit", "dirty"), _commit(), strict=True)),
        "libraries": _libraries(),
        "tags": dict(cfg.tags),
    }


def run_key(resolved: Mapping[str, Any], table: Table, parts: Split) -> str:
    """Give the hash of all that decides what a run gives: config, data, split, code, libraries."""
    config = {name: value for name, value in resolved.items() if name not in NOT_IN_KEY}
    config["data"] = {name: value for name, value in config["data"].items() if name != "path"}
    config["model"] = {**config["model"], "estimator": {**config["model"]["estimator"], "n_jobs": None}}
    parts_of_key = {
        "config": config,
        "data": table.fingerprint,
        "split": parts.fingerprint(),
        "code": _code_hash(),
        "libraries": _libraries(),
    }
    return hashlib.sha256(json.dumps(parts_of_key, sort_keys=True).encode()).hexdigest()


def _write_config(resolved: Mapping[str, Any], job: Job) -> Path:
    home = job.folder / CONFIG
    home.mkdir(parents=True)
    for name, content in (("config.yaml", resolved), ("overrides.yaml", job.overrides)):
        (home / name).write_text(
            yaml.dump(content, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
    return home


def _params(resolved: Mapping[str, Any]) -> dict[str, Any]:
    params = _flat({name: value for name, value in resolved.items() if name not in NOT_IN_KEY})
    return {name: value for name, value in params.items() if not name.startswith(NOT_A_PARAM)}


def _flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in node.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _tags(cfg: DictConfig, job: Job) -> dict[str, str]:
    commit, dirty = _commit()
    tags = {
        **{f"housing.{name}": str(value) for name, value in cfg.tags.items()},
        tracking.KIND: "run",
        "mlflow.source.name": "housing.train",
        "mlflow.source.git.commit": commit,
        "housing.dirty": str(dirty).lower(),
        "housing.command": " ".join(sys.argv)[:1000],
        "housing.overrides": " ".join(job.overrides)[:1000],
        "housing.host": socket.gethostname(),
        "housing.process": f"{os.getpid()} {_process_start()}",
        **{f"housing.{name}": version_ for name, version_ in _libraries().items()},
    }
    return tags if job.parent is None else {**tags, "mlflow.parentRunId": job.parent}


@functools.lru_cache
def _libraries() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}


@functools.lru_cache
def _code_hash() -> str:
    """Hash the project's files that fit or score: a commit of the README must not make a finished run unknown."""
    digest = hashlib.sha256()
    for name in CODE:
        place = PROJECT / "housing" / name
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


@functools.lru_cache
def _commit() -> tuple[str, bool]:
    """Give the commit and whether files differ from it; ("unknown", False) where the project is not in git."""
    git = ["git", "-C", str(PROJECT)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False
    return commit, bool(status)


@functools.lru_cache
def _process_start() -> str:
    """Give the start time of this process, in clock ticks since boot where the system tells (a pid alone comes again)."""
    try:
        return Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        return datetime.now(UTC).isoformat(timespec="seconds")
