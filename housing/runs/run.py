"""One run: a table goes in, a scored and tracked bundle comes out."""

import os
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from housing.core.environment import commit
from housing.core.errors import Pruned, SkippedError, StoreError
from housing.core.files import written_whole
from housing.core.locks import claim
from housing.core.validators import FLAG, POSITIVE, one_of, or_null, require, whole
from housing.data import table as data
from housing.data.split import Split, split
from housing.data.table import Table
from housing.plots import run_figures
from housing.runs import progress_bar
from housing.runs.outcome import Outcome
from housing.runs.pruning import Trial
from housing.runs.run_key import NOT_IN_KEY, provenance, run_key
from housing.schema.table_schema import Schema
from housing.tracking import store as tracking_store
from housing.tracking import tags as tracking_tags
from housing.tracking.runs import Run
from housing.tracking.store import Store
from housing.training.build import build
from housing.training.holdout import Evidence
from housing.training.metrics import COMPARABLE

NOT_A_PARAM = ("data.columns", "data.places", "data.ratios", "data.source")  # in config.yaml; too long for a table of runs


BUNDLE, CONFIG, FIGURES, EVIDENCE = "bundle", "config", "figures", "evidence"  # in a job's folder


ALLOWED = {
    "seed": whole(0, 2**32 - 1),
    "limit": or_null(whole(1)),
    "refit": FLAG,
    "threads": whole(0),
    "figures": FLAG,
    "log_model": one_of("all", "best"),
    "rerun": FLAG,
    "fail_fast": FLAG,
    "parity": POSITIVE,
    "golden_rows": whole(1),
    "background_rows": whole(1),
    "metric": one_of(*COMPARABLE),
}


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
        for left in (CONFIG, BUNDLE, FIGURES, EVIDENCE):  # of an earlier attempt, which was killed
            shutil.rmtree(job.folder / left, ignore_errors=True)
        begun.write(job.folder)  # all that a sweep finds of a job that is killed
        outcome = _run(cfg, job, begun, tracking_store.connect(cfg.mlflow))
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
        store.runs.close_dead(cfg.experiment_name)
    try:
        require(cfg, ALLOWED)
        table = data.load(cfg.data, cfg.limit)
        parts = split(table, cfg.split)
        key = run_key(resolved, table, parts)
    except Exception:
        store.runs.open(cfg.experiment_name, name, tags).fail()  # so that it is seen there too
        raise
    with claim(f"{store.client.uri} {cfg.experiment_name} {key}"):
        found = None if cfg.rerun else store.runs.find_finished(cfg.experiment_name, key)
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
        tags |= {**tracking_tags.key_tag(key), tracking_tags.DATA: table.fingerprint, tracking_tags.SPLIT: parts.fingerprint()}
        tags[tracking_tags.COLUMNS] = table.schema.interface_hash()
        with store.runs.start(cfg.experiment_name, name, tags) as opened:
            begun = replace(begun, run_id=opened.id, link=opened.link)
            begun.write(job.folder)
            opened.log_directory(_write_config(resolved, job), CONFIG)  # before anything can fail
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

    with progress_bar.rounds(alone) as show_round:

        def after_round(member: str, done: int, rounds: int, score: float | None) -> None:
            show_round(member, done, rounds, score)
            replace(begun, progress=f"{member}: round {done} of {rounds}").write(job.folder)

        def after_fit(evidence: Evidence) -> None:
            evidence.write(job.folder / EVIDENCE)

        bundle, metrics = build(cfg, table, parts, opened.id, after_fold, after_round, after_fit)
    bundle.write(job.folder / BUNDLE)
    opened.log(metrics=metrics)
    if alone or cfg.log_model == "all":
        keep(opened, job.folder, table.schema)
    if alone and cfg.figures:
        opened.log_directory(
            run_figures.draw(bundle, Evidence.read(job.folder / EVIDENCE), table, parts, job.folder / FIGURES), FIGURES
        )
    if alone:
        for kept in (BUNDLE, EVIDENCE):  # the store has it
            shutil.rmtree(job.folder / kept)
    return metrics


def keep(opened: Run, folder: Path, schema: Schema) -> None:
    """Log the bundle in a job's folder, and what figures need beside it."""
    opened.log_bundle(folder / BUNDLE, schema)
    opened.log_directory(folder / EVIDENCE, EVIDENCE)


def _write_config(resolved: Mapping[str, Any], job: Job) -> Path:
    home = job.folder / CONFIG
    home.mkdir(parents=True)
    for name, content in (("config.yaml", resolved), ("overrides.yaml", job.overrides)):
        (home / name).write_text(
            yaml.dump(content, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
    return home


def _params(resolved: Mapping[str, Any]) -> dict[str, Any]:
    params = flat({name: value for name, value in resolved.items() if name not in NOT_IN_KEY})
    return {name: value for name, value in params.items() if not name.startswith(NOT_A_PARAM)}


def flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give nested values by their names with dots."""
    values: dict[str, Any] = {}
    for name, value in node.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = value
    return values


def _tags(cfg: DictConfig, job: Job) -> dict[str, str]:
    tags = {
        **{f"housing.{name}": str(value) for name, value in cfg.tags.items()},
        tracking_tags.RUN_TYPE: "run",
        "mlflow.source.name": "housing.train",
        "housing.dirty": str(commit()[1]).lower(),
        "housing.command": " ".join(sys.argv)[:1000],
        "housing.overrides": " ".join(job.overrides)[:1000],
        tracking_tags.EVALUATION: cfg.evaluation.name,
        tracking_tags.FOLDER: str(job.folder.absolute()),
        **dict(provenance().values()),
    }
    return tags if job.parent is None else {**tags, tracking_tags.PARENT: job.parent}
