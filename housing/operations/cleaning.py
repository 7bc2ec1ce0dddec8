"""Clean-up by policy: runs and folders that are old, not among the best, and needed by no version, decision or sweep.

Runs and their bundles are deleted as MLflow deletes them: hidden, until `mlflow gc` removes them for good.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from omegaconf import DictConfig

from housing.core.environment import project_home
from housing.core.validators import BOOLEAN, integer, validate
from housing.tracking import store as tracking
from housing.tracking import tags
from housing.tracking.runs import RunRecord
from housing.tracking.store import Store
from housing.training.metrics import as_loss

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
        Folders of runs and sweeps that are removed, or would be.
    freed
        Bytes of these folders.
    is_dry_run
        Whether nothing was removed.
    """

    disk_use: dict[str, int]
    runs: list[str]
    kept_runs: int
    folders: list[Path]
    freed: int
    is_dry_run: bool


def clean(cfg: DictConfig) -> Cleaned:
    """Delete old runs and folders by the policy of `conf/clean.yaml`, or say which would be deleted.

    Raises
    ------
    ConfigError
        If a setting is out of range.
    StoreError
        If the store is unavailable.
    """
    validate(cfg, VALIDATORS)
    store, oldest = tracking.connect(cfg.mlflow), datetime.now(UTC) - timedelta(days=cfg.keep_days)
    records = store.runs.find_latest(cfg.experiment_name, {tags.RUN_TYPE: "run"}, MAX_RUNS)
    needed = _needed_runs(cfg, store) | _best_runs(records, cfg.metric, cfg.keep_best)
    removable = [
        record for record in records if record.id not in needed and record.status != RUNNING and record.started_at < oldest
    ]
    folders = [*_old_folders(Path(cfg.paths.outputs), oldest.timestamp())]
    cleaned = Cleaned(
        disk_use=_disk_use(cfg),
        runs=[record.id for record in removable],
        kept_runs=len(records) - len(removable),
        folders=folders,
        freed=sum(map(_size, folders)),
        is_dry_run=cfg.dry_run,
    )
    if not cfg.dry_run:
        for record in removable:
            store.runs.delete(record)
        for folder in folders:
            shutil.rmtree(folder)
    return cleaned


def _needed_runs(cfg: DictConfig, store: Store) -> set[str]:
    """Return the runs of all registered versions, the runs that decisions judged, and the best runs of sweeps."""
    decisions = store.runs.find_latest(cfg.decisions_experiment, {tags.RUN_TYPE: "decision"}, MAX_RUNS)
    sweeps = store.runs.find_latest(cfg.experiment_name, {tags.RUN_TYPE: "sweep"}, MAX_RUNS)
    judged = {decision.tags.get(tags.CHALLENGER, "") for decision in decisions}
    return store.registry.runs_of_versions() | judged | {sweep.tags.get(tags.BEST_RUN, "") for sweep in sweeps}


def _best_runs(records: list[RunRecord], metric: str, count: int) -> set[str]:
    scored = [record for record in records if record.status == "FINISHED" and metric in record.metrics]
    return {record.id for record in sorted(scored, key=lambda record: as_loss(metric, record.metrics[metric]))[:count]}


def _old_folders(outputs: Path, oldest: float) -> Iterator[Path]:
    """Yield the folders of runs and sweeps in which nothing was written since a time, in seconds since 1970."""
    for folder in (*outputs.glob("runs/*"), *outputs.glob("sweeps/*")):
        if folder.is_dir() and not folder.is_symlink():
            newest = max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
            if newest < min(oldest, time.time()):
                yield folder


def _disk_use(cfg: DictConfig) -> dict[str, int]:
    """Return the bytes of each kind of files of this project."""
    outputs, serving, data = (Path(cfg.paths[name]) for name in ("outputs", "serving", "data"))
    home = project_home()
    logs = [*serving.glob("*.log")]
    return {
        "folders of runs": _size(outputs / "runs"),
        "folders of sweeps": _size(outputs / "sweeps"),
        "other outputs": _size(outputs) - _size(outputs / "runs") - _size(outputs / "sweeps"),
        "store": _size(home / "mlflow.db"),
        "artifacts and bundles": _size(home / "mlartifacts"),
        "releases of servers": _size(serving) - sum(map(_size, logs)),
        "prediction logs": sum(map(_size, logs)),
        "tables": _size(data),
        "cache of DVC": _size(home / ".dvc" / "cache"),
    }


def _size(path: Path) -> int:
    """Return the bytes of a file or of all files in a folder, 0 if it does not exist. Links are not followed."""
    paths = [path, *path.rglob("*")] if path.is_dir() else [path]
    return sum(item.lstat().st_size for item in paths if item.is_file() and not item.is_symlink())
