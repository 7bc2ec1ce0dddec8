"""Clean-up by policy: runs that are old, not among the best, and needed by no version, decision or sweep, and their folders.

A folder goes with the run that its `outcome.json` names. All other folders stay, whoever made them.

Runs and their bundles are deleted as MLflow deletes them: hidden, until `mlflow gc` removes them for good.
"""

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from omegaconf import DictConfig

from housing.core.environment import project_home
from housing.core.errors import ConfigError
from housing.core.locks import store_file
from housing.core.validators import BOOLEAN, integer, validate
from housing.runs.outcome import OUTCOME_FILE, Outcome
from housing.scoring.metrics import as_loss
from housing.tracking import store as tracking
from housing.tracking import tags
from housing.tracking.runs import RunRecord
from housing.tracking.store import Store

MAX_RUNS = 50_000  # of one request to MLflow
RUNNING = "RUNNING"
VALIDATORS = {"keep_best": integer(0), "keep_days": integer(1), "dry_run": BOOLEAN}


@dataclass(frozen=True)
class Cleaned:
    """The result of a clean-up.

    Attributes
    ----------
    disk_use
        Bytes by kind, before the clean-up.
    runs
        Ids of the runs that are deleted, or would be.
    kept_runs
        The number of runs that are kept.
    folders
        Folders of these runs, also those in the folders of sweeps, that are removed, or would be.
    freed
        Bytes of these folders.
    left_folders
        The number of old folders that stay because they name no run of this table in the store.
    is_dry_run
        Whether nothing was removed.
    """

    disk_use: dict[str, int]
    runs: list[str]
    kept_runs: int
    folders: list[Path]
    freed: int
    left_folders: int
    is_dry_run: bool


def clean(cfg: DictConfig) -> Cleaned:
    """Delete old runs and folders by the policy of `conf/clean.yaml`, or say which would be deleted.

    Raises
    ------
    ConfigError
        If a setting is out of range, or no finished run has the metric that ranks runs.
    StoreError
        If the store is unavailable or does not exist.
    """
    validate(cfg, VALIDATORS)
    store, oldest = tracking.connect(cfg.mlflow), datetime.now(UTC) - timedelta(days=cfg.keep_days)
    records = store.runs.find_latest(cfg.experiment_name, {tags.RUN_TYPE: "run"}, MAX_RUNS)
    needed = _needed_runs(cfg, store) | _best_runs(records, cfg)
    removable = [
        record for record in records if record.id not in needed and record.status != RUNNING and record.started_at < oldest
    ]
    run_ids = {folder: _run_of(folder) for folder in _old_folders(Path(cfg.paths.outputs), oldest.timestamp())}
    known, removed = {record.id for record in records}, {record.id for record in removable}
    folders = [folder for folder, run_id in run_ids.items() if run_id in removed]
    cleaned = Cleaned(
        disk_use=_disk_use(cfg),
        runs=[record.id for record in removable],
        kept_runs=len(records) - len(removable),
        folders=folders,
        freed=sum(map(_size, folders)),
        left_folders=sum(run_id not in known for run_id in run_ids.values()),
        is_dry_run=cfg.dry_run,
    )
    if not cfg.dry_run:
        for folder in folders:  # first: a folder whose run is deleted is never found again
            shutil.rmtree(folder)
        for record in removable:
            store.runs.delete(record)
    return cleaned


def _needed_runs(cfg: DictConfig, store: Store) -> set[str]:
    """Return the runs of all registered versions, the runs that decisions judged, and the best runs of sweeps."""
    decisions = store.runs.find_latest(cfg.decisions_experiment, {tags.RUN_TYPE: "decision"}, MAX_RUNS)
    sweeps = store.runs.find_latest(cfg.experiment_name, {tags.RUN_TYPE: "sweep"}, MAX_RUNS)
    judged = {decision.tags.get(tags.CHALLENGER, "") for decision in decisions}
    return store.registry.runs_of_versions() | judged | {sweep.tags.get(tags.BEST_RUN, "") for sweep in sweeps}


def _best_runs(records: list[RunRecord], cfg: DictConfig) -> set[str]:
    """Return the ids of the `keep_best` best finished runs. Raises ConfigError if the metric ranks none of the finished runs."""
    finished = [record for record in records if record.status == "FINISHED"]
    scored = [record for record in finished if not math.isnan(record.metrics.get(cfg.metric, math.nan))]  # NaN has no order
    if finished and not scored and cfg.keep_best:
        raise ConfigError(
            f"metric={cfg.metric}: no run of experiment {cfg.experiment_name} has this metric, so keep_best would keep none."
            f" Use one of {', '.join(sorted({name for record in finished for name in record.metrics}))}."
        )
    ranked = sorted(scored, key=lambda record: as_loss(cfg.metric, record.metrics[cfg.metric]))
    return {record.id for record in ranked[: cfg.keep_best]}


def _old_folders(outputs: Path, oldest: float) -> Iterator[Path]:
    """Yield the folders of runs and jobs in which nothing was written since a time, in seconds since 1970."""
    for folder in _folders(outputs):
        newest = max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
        if newest < oldest:
            yield folder


def _folders(outputs: Path) -> Iterator[Path]:
    """Yield each folder below `runs`, each job's folder below `sweeps`, and each folder below `sweeps` that has no job."""
    yield from filter(_is_folder, outputs.glob("runs/*"))
    for sweep in filter(_is_folder, outputs.glob("sweeps/*")):
        jobs = [path.parent for path in sweep.glob(f"*/{OUTCOME_FILE}") if _is_folder(path.parent)]
        yield from jobs or [sweep]


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _run_of(folder: Path) -> str | None:
    """Return the id of the run that a folder belongs to, or None if it is not the folder of a run."""
    try:
        outcome = Outcome.read(folder)
    except (OSError, ValueError, TypeError):  # no file that this version of the project wrote
        return None
    return None if outcome is None else str(outcome.run_id)


def _disk_use(cfg: DictConfig) -> dict[str, int]:
    """Return the bytes of each kind of files of this project; 0 for a store or artifacts on a server."""
    outputs, serving, data = (Path(cfg.paths[name]) for name in ("outputs", "serving", "data"))
    logs, artifacts = [*serving.glob("*.log")], cfg.mlflow.artifacts
    return {
        "folders of runs": _size(outputs / "runs"),
        "folders of sweeps": _size(outputs / "sweeps"),
        "other outputs": _size(outputs) - _size(outputs / "runs") - _size(outputs / "sweeps"),
        "store": _size(store_file(cfg.mlflow.tracking_uri)),
        "artifacts and bundles": _size(None if artifacts is None else Path(artifacts)),
        "releases of servers": _size(serving) - sum(map(_size, logs)),
        "prediction logs": sum(map(_size, logs)),
        "tables": _size(data),
        "cache of DVC": _size(project_home() / ".dvc" / "cache"),
    }


def _size(path: Path | None) -> int:
    """Return the bytes of a file or of all files in a folder, 0 if there is none. Links are not followed."""
    if path is None:
        return 0
    paths = [path, *path.rglob("*")] if path.is_dir() else [path]
    return sum(item.lstat().st_size for item in paths if item.is_file() and not item.is_symlink())
