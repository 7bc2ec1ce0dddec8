"""One tracked run: fits and scores what a config describes, and logs bundle and scores to MLflow."""

import logging
import os
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from housing.bundle.bundle import Bundle
from housing.cluster.fit_workers import fits_on_workers
from housing.core.config import SWEEP_RUN, to_yaml
from housing.core.environment import commit, uncommitted_changes
from housing.core.errors import JobSkipped, StoreError, TrialPruned
from housing.core.files import atomic_write
from housing.core.locks import machine_lock
from housing.core.resource_usage import ResourceMeter
from housing.core.validators import BOOLEAN, POSITIVE, choice, integer, optional, validate
from housing.data.dvc import present_version
from housing.data.split import Split, split
from housing.data.table import Table
from housing.fitting.estimators import AUTO
from housing.plots import run_figures
from housing.runs import progress_bar
from housing.runs.outcome import Outcome
from housing.runs.pruning import Trial
from housing.runs.run_key import EXCLUDED_FROM_KEY, provenance, run_key
from housing.scoring.holdout import HoldoutPredictions
from housing.scoring.metrics import as_loss
from housing.scoring.ranking_metric import RankingMetric
from housing.streaming.loading import load
from housing.streaming.settings import StreamSettings
from housing.streaming.streamed_table import StreamedTable
from housing.tracking import store as tracking_store
from housing.tracking import tags as tracking_tags
from housing.tracking.lineage import DatasetVersion
from housing.tracking.runs import Run, RunRecord, closing
from housing.tracking.store import Store
from housing.training.build import BuildSettings, build, describe_weights
from housing.training.stream_requirements import require_streamable

# Too long for MLflow's table of runs. The logged config.yaml has them.
UNLOGGED_PARAMS = ("data.columns", "data.landmarks", "data.derived_products", "data.source", "data.card")
BUNDLE, CONFIG, FIGURES, HOLDOUT = "bundle", "config", "figures", "holdout"  # folders in a job's folder
CHANGES_FILE = "uncommitted.diff"  # what differs from the commit of the run
STOP_FILE = "stop"  # in a sweep's folder: the reason to start no further job
MAX_REASON = 1000  # characters
INTERRUPTED = "Interrupted. Run the same command again to continue."

log = logging.getLogger(__name__)

ALLOWED = {
    "seed": integer(0, 2**32 - 1),
    "max_rows": optional(integer(1)),
    "refit": BOOLEAN,
    "n_threads": integer(0),
    "figures": BOOLEAN,
    "log_model": choice("all", "best"),
    "force_rerun": BOOLEAN,
    "fail_fast": BOOLEAN,
    "parity_tolerance": POSITIVE,
    "n_golden_rows": integer(1),
    "n_background_rows": integer(1),
    "n_sample_rows": integer(0),
}


@dataclass(frozen=True)
class Job:
    """A job of Hydra: the command line's overrides, the folder for files, and the run of its sweep."""

    overrides: list[str]
    folder: Path
    sweep_run_id: str | None = None  # None: a run of its own

    @classmethod
    def from_hydra(cls) -> Self:
        """Return the job that Hydra is running in this process."""
        hydra = HydraConfig.get()
        return cls(list(hydra.overrides.task), Path(hydra.runtime.output_dir), os.environ.get(SWEEP_RUN))

    @property
    def is_standalone(self) -> bool:
        """Whether the job is a run of its own, not a job of a sweep."""
        return self.sweep_run_id is None


def run(cfg: DictConfig, job: Job) -> Outcome:
    """Fit, score and track the model that a config describes, or return the outcome of an equal finished run.

    Test rows are not touched. An error is logged to MLflow with its traceback, and written to the job's folder, before
    it is raised.
    """
    started = Outcome(job.overrides, "RUNNING", worker=f"{socket.gethostname()} {os.getpid()}", started_at=time.time())
    try:
        _raise_if_stopped(job)
        for name in (CONFIG, BUNDLE, FIGURES, HOLDOUT):  # left by an earlier attempt that was killed
            shutil.rmtree(job.folder / name, ignore_errors=True)
        started.write(job.folder)  # the only trace of a job that is killed
        outcome = _run_or_reuse(cfg, job, started, tracking_store.connect(cfg.mlflow, create=True))
    except JobSkipped as error:
        _close_outcome(started, "SKIPPED", str(error)).write(job.folder)
        raise
    except TrialPruned as reason:
        outcome = _close_outcome(_latest_outcome(job, started), "PRUNED", str(reason))
    except Exception as error:
        _close_outcome(_latest_outcome(job, started), "FAILED", f"{type(error).__name__}: {error}").write(job.folder)
        if not job.is_standalone and (cfg.fail_fast or isinstance(error, StoreError)):
            _request_stop(job, error)
        raise
    except BaseException:
        _close_outcome(_latest_outcome(job, started), "KILLED", INTERRUPTED).write(job.folder)
        raise
    outcome.write(job.folder)
    return outcome


def _close_outcome(outcome: Outcome, status: str, error: str) -> Outcome:
    return replace(outcome, status=status, error=error, seconds=time.time() - outcome.started_at, progress="")


def _latest_outcome(job: Job, started: Outcome) -> Outcome:
    """Return the outcome that the job has written so far."""
    return Outcome.read(job.folder) or started


def _raise_if_stopped(job: Job) -> None:
    """Raise JobSkipped if a failed job has stopped the sweep."""
    stop_file = job.folder.parent / STOP_FILE
    if not job.is_standalone and stop_file.exists():
        raise JobSkipped(f"Not started: {stop_file.read_text(encoding='utf-8')}")


def _request_stop(job: Job, error: Exception) -> None:
    write_stop_file(job.folder.parent, f"job {job.folder.name} failed: {error}")


def write_stop_file(sweep_folder: Path, reason: str) -> None:
    """Stop a sweep: its jobs that have not started are skipped for this reason."""
    with atomic_write(sweep_folder / STOP_FILE) as partial:
        partial.write_text(reason[:MAX_REASON], encoding="utf-8")


def _run_or_reuse(cfg: DictConfig, job: Job, started: Outcome, store: Store) -> Outcome:
    name, tags = f"{cfg.model.name} {cfg.features.name}", run_tags(cfg, job)
    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    if resolved.get("engine", {}).get("cluster"):
        resolved["engine"]["cluster"] = None  # it belongs to this machine. From a stored config, it could run any command
    if job.is_standalone:
        store.runs.close_dead(cfg.experiment_name)
    try:
        validate(cfg, ALLOWED)
        if StreamSettings.from_config(cfg.get("engine")) is not None:
            require_streamable(cfg)
        metric = RankingMetric.from_config(cfg)
        table = load(cfg)
        parts = split(table, cfg.split)
        metric.check(table.target[np.concatenate([parts.train, parts.valid])])
        key = run_key(resolved, table, parts)
        started = replace(started, scored_rows=f"{table.fingerprint} {parts.fingerprint()} {cfg.evaluation.name}")
    except Exception:
        store.runs.open(cfg.experiment_name, name, tags).fail()  # the failure shows in MLflow, too
        raise
    with machine_lock(f"{store.client.uri} {cfg.experiment_name} {key}"):
        existing = None if cfg.force_rerun else store.runs.find_finished(cfg.experiment_name, key)
        if existing is not None:
            return _reused_outcome(started, existing)
        tags |= {tracking_tags.DATA: table.fingerprint, tracking_tags.SPLIT: parts.fingerprint()}
        tags |= _engine_tags(cfg, table, parts)
        tags[tracking_tags.COLUMNS] = table.schema.interface_hash()
        if cfg.target.transform != AUTO:
            tags[tracking_tags.TRANSFORM] = str(cfg.target.transform)
        if parts.fitted_until is not None:
            tags[tracking_tags.FITTED_UNTIL] = repr(parts.fitted_until)
        claimed = store.runs.claim(cfg.experiment_name, name, tags, key, reuse=not cfg.force_rerun)
        if isinstance(claimed, RunRecord):
            return _reused_outcome(started, claimed)
        meter = ResourceMeter()
        with closing(claimed) as tracked_run:
            started = replace(started, run_id=tracked_run.id, link=tracked_run.link)
            started.write(job.folder)
            tracked_run.log_directory(_write_config(resolved, job), CONFIG)  # first, so that a failed run has its config
            dataset = _dataset_version(cfg, table, parts)
            with ThreadPoolExecutor(1) as background:  # transactions wait for the disk, which the fit need not
                logged = background.submit(_log_inputs, tracked_run, loggable_params(resolved), dataset)
                metrics = _fit_and_log(cfg, job, table, parts, started, tracked_run, meter)
                logged.result()
    return replace(started, status="FINISHED", metrics=metrics, seconds=time.time() - started.started_at)


def _log_inputs(tracked_run: Run, params: Mapping[str, Any], dataset: DatasetVersion) -> None:
    tracked_run.log(params=params)
    tracked_run.log_dataset(dataset)


def _dataset_version(cfg: DictConfig, table: Table, parts: Split) -> DatasetVersion:
    rows = {"train": len(parts.train), "valid": len(parts.valid), "test": len(parts.test)}
    path = Path(cfg.data.path)
    return DatasetVersion(
        name=cfg.data.name,
        fingerprint=table.fingerprint,
        path=str(path),
        dvc_version=present_version(path),
        split=cfg.split["_target_"].rpartition(".")[2],
        split_fingerprint=parts.fingerprint(),
        rows=rows,
        schema=table.schema,
    )


def _engine_tags(cfg: DictConfig, table: Table, parts: Split) -> dict[str, str]:
    """Return tags of a run that reads its table in chunks, and log what it computes on a part of the validation rows."""
    if not isinstance(table, StreamedTable):
        return {}
    n_rows, n_valid = len(table.bounded(parts.valid)), len(parts.valid)
    if n_rows == n_valid:
        return {tracking_tags.ENGINE: cfg.engine.name}
    sample = f"{n_rows:,} of {n_valid:,} validation rows"
    log.info(
        "engine=%s: intervals, figures and the check of the exported model use %s. Scores use all of them.",
        cfg.engine.name,
        sample,
    )
    return {tracking_tags.ENGINE: cfg.engine.name, tracking_tags.SAMPLE: sample}


def _reused_outcome(started: Outcome, existing: RunRecord) -> Outcome:
    return replace(
        started,
        status="FINISHED",
        run_id=existing.id,
        link=existing.run.link,
        reused=True,
        metrics=existing.metrics,
        seconds=time.time() - started.started_at,
    )


def _fit_and_log(
    cfg: DictConfig, job: Job, table: Table, parts: Split, started: Outcome, tracked_run: Run, meter: ResourceMeter
) -> dict[str, float]:
    """Fit and log a run. In a sweep the bundle stays in the job's folder until the sweep ends."""
    prunable = cfg.trial is not None and cfg.evaluation.folds is not None  # without folds a job needs no access to the study
    trial = Trial.open(job.folder.parent, cfg.trial) if prunable else None

    def on_fold(number: int, folds: int, scores: dict[str, float]) -> None:
        replace(started, progress=f"fold {number} of {folds}, {cfg.metric} {scores[cfg.metric]:.4f}").write(job.folder)
        if trial is not None and number < folds and trial.should_prune(number, as_loss(cfg.metric, scores[cfg.metric])):
            raise TrialPruned(f"Pruned after fold {number} of {folds}: {cfg.metric} {scores[cfg.metric]:.4f}")

    with progress_bar.boosting_progress(job.is_standalone) as show_round:

        def on_round(member: str, done: int, rounds: int, score: float | None) -> None:
            show_round(member, done, rounds, score)
            replace(started, progress=f"{member}: round {done} of {rounds}").write(job.folder)

        def on_fit(holdout: HoldoutPredictions) -> None:
            holdout.write(job.folder / HOLDOUT)

        with fits_on_workers(cfg.get("engine"), table) as (fitted_table, lost):
            bundle, metrics = build(
                BuildSettings.from_config(cfg), fitted_table, parts, tracked_run.id, on_fold, on_round, on_fit
            )
    bundle.write(job.folder / BUNDLE)
    if job.is_standalone or cfg.log_model == "all":
        log_bundle(tracked_run, job.folder, bundle)
    if job.is_standalone and cfg.figures:
        holdout = HoldoutPredictions.read(job.folder / HOLDOUT)
        tracked_run.log_directory(run_figures.draw(bundle, holdout, table, parts, job.folder / FIGURES), FIGURES)
    if job.is_standalone:
        for name in (BUNDLE, HOLDOUT):  # the store has both
            shutil.rmtree(job.folder / name)
    lost_tag = {tracking_tags.LOST_WORKERS: ", ".join(lost)} if lost else {}
    # last, and with the scores: another call would be another transaction of each job of a sweep
    tracked_run.log(metrics=metrics, tags=_choice_tags(bundle, cfg.target.transform) | lost_tag, resources=meter.read())
    return metrics


def _choice_tags(bundle: Bundle, transform: str) -> dict[str, str]:
    """Return tags of what the run chose on its validation rows. A `transform` that its config chose is a tag already."""
    method, chosen = bundle.card["encoding"]["method"], bundle.card["target"]["transform"]
    tags = {} if chosen == transform else {tracking_tags.TRANSFORM: chosen}
    if method is not None:
        tags[tracking_tags.ENCODING] = method
    if bundle.card["distillation"] is not None:
        tags[tracking_tags.TEACHER] = bundle.card["distillation"]["teacher"]
    members = bundle.card["members"]
    if members["held_out_rmse"]:
        tags[tracking_tags.MEMBERS] = describe_weights(members["weights"])
    return tags


def log_bundle(tracked_run: Run, folder: Path, bundle: Bundle) -> None:
    """Log the bundle and the held-out predictions in a job's folder, with golden rows as examples of what the model takes."""
    tracked_run.log_bundle(folder / BUNDLE, bundle.schema, bundle.golden["rows"])
    tracked_run.log_directory(folder / HOLDOUT, HOLDOUT)


def _write_config(resolved: Mapping[str, Any], job: Job) -> Path:
    folder = job.folder / CONFIG
    folder.mkdir(parents=True)
    for name, content in (("config.yaml", resolved), ("overrides.yaml", job.overrides)):
        (folder / name).write_text(to_yaml(content), encoding="utf-8")
    if changes := uncommitted_changes():
        (folder / CHANGES_FILE).write_text(changes, encoding="utf-8")
    return folder


def loggable_params(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a config that MLflow's table of runs shows, by their dotted names."""
    params = flatten({name: value for name, value in resolved.items() if name not in EXCLUDED_FROM_KEY})
    return {name: value for name, value in params.items() if not name.startswith(UNLOGGED_PARAMS)}


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by their dotted names."""
    values: dict[str, Any] = {}
    for name, value in node.items():
        if isinstance(value, Mapping):
            values |= flatten(value, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = value
    return values


def run_tags(cfg: DictConfig, job: Job) -> dict[str, str]:
    """Return the tags of a run that are known before it starts."""
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
    return tags if job.sweep_run_id is None else {**tags, tracking_tags.PARENT: job.sweep_run_id}
