"""One run: a table goes in, a scored and tracked bundle comes out."""

import functools
import hashlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from housing import data, figures, models, tracking
from housing.bundle import Bundle
from housing.claims import claim
from housing.config import PROJECT
from housing.data import Table
from housing.errors import Pruned, SkippedError, StoreError
from housing.files import written_whole
from housing.records import Outcome
from housing.split import Split, split
from housing.tracking import Run, Store
from housing.trial import Trial

# What may differ between two runs that give the same model: places, tracking, threads, what is kept and shown.
NOT_IN_KEY = ("paths", "mlflow", "experiment_name", "threads", "figures", "log_model", "rerun", "fail_fast", "trial", "tags")
NOT_A_PARAM = ("data.columns", "data.places", "data.ratios", "data.source")  # in config.yaml; too long for a table of runs
LIBRARIES = ("numpy", "scikit-learn", "xgboost-cpu" if sys.platform != "darwin" else "xgboost")
CODE = ("schema.py", "features", "bundle.py", "data.py", "split.py", "models.py", "run.py")
BUNDLE, CONFIG, FIGURES = "bundle", "config", "figures"  # in a job's folder
STOP = "stop"  # in a sweep's folder: why no further job is begun


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
    begun = Outcome(job.overrides, "RUNNING", worker=f"{socket.gethostname()} {os.getpid()}", started=time.time())
    try:
        _require_going_on(job)
        for left in (CONFIG, BUNDLE, FIGURES):  # of an earlier attempt, which was killed
            shutil.rmtree(job.folder / left, ignore_errors=True)
        begun.write(job.folder)  # all that a sweep finds of a job that is killed
        outcome = _run(cfg, job, begun, tracking.connect(cfg.mlflow))
    except SkippedError as error:
        _ended(begun, "SKIPPED", str(error)).write(job.folder)
        raise
    except Pruned as reason:
        outcome = _ended(_read(job, begun), "PRUNED", str(reason))
    except Exception as error:
        _ended(_read(job, begun), "FAILED", f"{type(error).__name__}: {error}").write(job.folder)
        if job.parent and (cfg.fail_fast or isinstance(error, StoreError)):
            _stop(job, error)
        raise
    except BaseException:
        _ended(_read(job, begun), "KILLED", "interrupted; the same command goes on from here").write(job.folder)
        raise
    outcome.write(job.folder)
    return outcome


def _ended(outcome: Outcome, status: str, error: str) -> Outcome:
    return replace(outcome, status=status, error=error, seconds=time.time() - outcome.started, progress="")


def _read(job: Job, begun: Outcome) -> Outcome:
    """Give what the job has written down of itself so far."""
    return Outcome.read(job.folder) or begun


def _require_going_on(job: Job) -> None:
    """Raise SkippedError where the sweep of a job has been told to stop."""
    stop = job.folder.parent / STOP
    if job.parent and stop.exists():
        raise SkippedError(f"not begun: {stop.read_text(encoding='utf-8')}")


def _stop(job: Job, error: Exception) -> None:
    with written_whole(job.folder.parent / STOP) as partial:
        partial.write_text(f"job {job.folder.name} failed: {error}"[:1000], encoding="utf-8")


def _run(cfg: DictConfig, job: Job, begun: Outcome, store: Store) -> Outcome:
    name, tags = f"{cfg.model.name} {cfg.features.name}", _tags(cfg, job)
    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    if job.parent is None:
        store.close_dead(cfg.experiment_name)
    try:
        models.require_comparable(cfg.metric)
        table = data.load(cfg.data, cfg.limit)
        parts = split(table, cfg.split)
        key = run_key(resolved, table, parts)
    except Exception:
        store.open_run(cfg.experiment_name, name, tags).fail()  # so that it is seen there too
        raise
    with claim(f"{store.uri} {cfg.experiment_name} {key}"):
        found = None if cfg.rerun else store.finished(cfg.experiment_name, key)
        if found is not None:
            seconds = time.time() - begun.started
            return replace(
                begun,
                status="FINISHED",
                run_id=found.id,
                link=found.run.link,
                reused=True,
                metrics=found.metrics,
                seconds=seconds,
            )
        tags |= {**tracking.key_tag(key), tracking.DATA: table.fingerprint, tracking.SPLIT: parts.fingerprint()}
        with store.run(cfg.experiment_name, name, tags) as opened:
            begun = replace(begun, run_id=opened.id, link=opened.link)
            begun.write(job.folder)
            opened.files(_write_config(resolved, job), CONFIG)  # before anything can fail
            opened.log(params=_params(resolved))
            metrics = _fit_and_log(cfg, job, table, parts, begun, opened)
    return replace(begun, status="FINISHED", metrics=metrics, seconds=time.time() - begun.started)


def _fit_and_log(cfg: DictConfig, job: Job, table: Table, parts: Split, begun: Outcome, opened: Run) -> dict[str, float]:
    """Fit and log; in a sweep the bundle stays in the job's folder, for the sweep's end."""
    alone = job.parent is None
    prunable = cfg.trial is not None and cfg.evaluation.folds is not None  # else a job needs no way to the study
    trial = Trial.open(job.folder.parent, cfg.trial) if prunable else None

    def after_fold(number: int, folds: int, scores: dict[str, float]) -> None:
        replace(begun, progress=f"fold {number} of {folds}, {cfg.metric} {scores[cfg.metric]:.4f}").write(job.folder)
        if trial is not None and number < folds and trial.is_given_up(number, scores[cfg.metric]):
            raise Pruned(f"given up after fold {number} of {folds}: {cfg.metric} {scores[cfg.metric]:.4f}")

    bundle, metrics = build(cfg, table, parts, opened.id, after_fold)
    bundle.write(job.folder / BUNDLE)
    opened.log(metrics=metrics)
    if alone or cfg.log_model == "all":
        opened.bundle(job.folder / BUNDLE, table.schema)
    if alone and cfg.figures:
        opened.files(figures.draw(bundle, table, parts.valid, job.folder / FIGURES), FIGURES)
    if alone:
        shutil.rmtree(job.folder / BUNDLE)  # the store has it
    return metrics


def _silent(_number: int, _folds: int, _scores: dict[str, float]) -> None:
    """Tell nobody."""


def build(
    cfg: DictConfig, table: Table, parts: Split, run_id: str, after_fold: models.AfterFold = _silent
) -> tuple[Bundle, dict[str, float]]:
    """Fit on the training rows and give the bundle with the metrics that runs are compared by; tracks nothing."""
    scores = {} if cfg.evaluation.folds is None else models.cross_validate(cfg, table, parts, after_fold)
    fitted = models.fit(cfg, table, parts.train)
    bundle = models.to_bundle(fitted, table, parts, cfg.parity, cfg.golden_rows)
    valid = table.matrix[parts.valid]
    metrics = {
        **(scores or models.score(bundle.predict(valid), table.target[parts.valid])),
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
    tags = {
        **{f"housing.{name}": str(value) for name, value in cfg.tags.items()},
        tracking.KIND: "run",
        "mlflow.source.name": "housing.train",
        "housing.dirty": str(_commit()[1]).lower(),
        "housing.command": " ".join(sys.argv)[:1000],
        "housing.overrides": " ".join(job.overrides)[:1000],
        tracking.EVALUATION: cfg.evaluation.name,
        tracking.FOLDER: str(job.folder.absolute()),
        **dict(provenance().values()),
    }
    return tags if job.parent is None else {**tags, tracking.PARENT: job.parent}


def provenance() -> dict[str, tuple[str, str]]:
    """Give what a run is made with besides config and data: for each thing the tag of a run, and its value here and now."""
    libraries = {name: (f"housing.{name}", version_) for name, version_ in _libraries().items()}
    return {
        "commit": ("mlflow.source.git.commit", _commit()[0]),
        "code that fits or scores": (tracking.CODE, _code_hash()),
        "python": ("housing.python", platform.python_version()),
        **libraries,
    }


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
