"""Retraining: from a new version of the table to a promoted model, exactly once for each version."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from omegaconf import DictConfig, ListConfig, OmegaConf

from housing.core.errors import HousingError, StoreError
from housing.core.locks import LockTimeout, file_lock
from housing.core.printable import show
from housing.core.validators import NON_NEGATIVE, Validator, integer, validate
from housing.data import dvc
from housing.data import table as tables
from housing.data.download import fetch_table
from housing.data.settings import TableSettings
from housing.operations.retraining_summary import NO_NEW_LABELS, UP_TO_DATE, RetrainingSummary
from housing.operations.subcommands import PROMOTE_OVERRIDES, matching_overrides, run_command
from housing.promotion import decision_log
from housing.promotion.decision import PROMOTE
from housing.promotion.settings import AliasSettings
from housing.runs.outcome import Outcome
from housing.runs.run_key import retraining_key
from housing.sweeps.sweep import JOBS_FILE
from housing.tracking import store as tracking
from housing.tracking import tags
from housing.tracking.runs import RunRecord
from housing.tracking.store import Store

TAG_PREFIX = "housing."
KEY_TAG, STARTED_BY_TAG, ROWS_TAG, NEW_ROWS_TAG, RETRAINED_TAG = (
    f"{TAG_PREFIX}{name}" for name in ("retraining", "started_by", "rows", "new_rows", "retrained")
)
RETRAIN_TAGS = {tags.RUN_TYPE: "sweep", STARTED_BY_TAG: "retrain"}
NEWEST_FIRST = "attributes.start_time DESC"

RESERVED_OVERRIDES = ("run_id=", "sweep=", "metrics_files=", "alias=")  # set by the retraining itself
OVERRIDE_LIST = Validator(
    "a list of strings", lambda value: isinstance(value, ListConfig) and all(isinstance(override, str) for override in value)
)
PROMOTE_OVERRIDE_LIST = Validator(
    f"{OVERRIDE_LIST.description}, none of which starts with {' '.join(RESERVED_OVERRIDES)}",
    lambda value: OVERRIDE_LIST.is_valid(value) and not any(override.startswith(RESERVED_OVERRIDES) for override in value),
)
VALIDATORS = {
    "sweep_overrides": OVERRIDE_LIST,
    "promote_overrides": PROMOTE_OVERRIDE_LIST,
    "min_new_rows": integer(0),
    "lock_timeout_seconds": NON_NEGATIVE,
}


@dataclass(frozen=True)
class RetrainSettings:  # pylint: disable=too-many-instance-attributes  # one for each key of conf/retrain.yaml
    """Settings of a retraining; `data` and `mlflow` are the configs of the table and of the store.

    Attributes
    ----------
    experiment
        MLflow experiment of the sweep.
    min_new_rows
        A retraining of fewer new rows is skipped.
    """

    data: DictConfig
    mlflow: DictConfig
    sweep_overrides: tuple[str, ...]
    promote_overrides: tuple[str, ...]
    alias: AliasSettings
    experiment: str
    min_new_rows: int
    summary_file: Path
    output_file: Path
    lock: Path
    lock_timeout_seconds: float

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Self:
        """Read and validate the config of the command. Raises ConfigError if a value is out of range."""
        validate(cfg, VALIDATORS)
        return cls(
            data=cfg.data,
            mlflow=cfg.mlflow,
            sweep_overrides=tuple(cfg.sweep_overrides),
            promote_overrides=tuple(cfg.promote_overrides),
            alias=AliasSettings.from_config(cfg),
            experiment=cfg.experiment_name,
            min_new_rows=cfg.min_new_rows,
            summary_file=Path(cfg.summary_file),
            output_file=Path(cfg.output_file),
            lock=Path(cfg.lock),
            lock_timeout_seconds=cfg.lock_timeout_seconds,
        )


def retrain(cfg: DictConfig) -> RetrainingSummary:
    """Run the remaining steps for the current version of the table, config and code.

    Each step leaves a tag in the store. An interrupted retraining therefore resumes, and a finished one is not repeated.
    """
    settings = RetrainSettings.from_config(cfg)
    with _exclusive(settings):
        return _retrain(settings)


def _retrain(settings: RetrainSettings) -> RetrainingSummary:
    show(str(fetch_table(TableSettings.from_config(settings.data))))
    table = tables.load(settings.data)
    store = tracking.connect(settings.mlflow, create=True)
    key = compute_key(settings, table.fingerprint)
    sweep = _find_sweep(store, settings, {KEY_TAG: key})
    new_rows = len(table) - _rows_at_last_retraining(store, settings)
    summary = RetrainingSummary(settings.data.name, table.fingerprint, len(table), new_rows, settings.alias.name)
    idle = _idle_verdict(settings, sweep, new_rows)
    if idle is None:
        return _finish(settings, store, sweep or _run_sweep(settings, store, key, summary), summary)
    summary.verdict, reason = idle
    summary.reasons.append(reason)
    summary.append_to_files(settings.summary_file, settings.output_file)
    return summary


def compute_key(settings: RetrainSettings, fingerprint: str) -> str:
    """Return the key that identifies a retraining on one version of the table."""
    table_config: Any = OmegaConf.to_container(settings.data, resolve=True)
    return retraining_key(fingerprint, table_config, settings.sweep_overrides)


def _idle_verdict(settings: RetrainSettings, sweep: RunRecord | None, new_rows: int) -> tuple[str, str] | None:
    """Return the verdict and its reason if there is nothing to do, or None if a retraining must start or resume."""
    if sweep is not None and RETRAINED_TAG not in sweep.tags:
        return None
    if settings.min_new_rows > 0 and new_rows < settings.min_new_rows:  # without a minimum, lost rows are a change too
        return NO_NEW_LABELS, f"a retraining needs at least {settings.min_new_rows:,} new labeled rows (min_new_rows)"
    if sweep is not None:
        return UP_TO_DATE, "this version of the table was already retrained with the same config, code and libraries"
    return None


def _finish(settings: RetrainSettings, store: Store, sweep: RunRecord, summary: RetrainingSummary) -> RetrainingSummary:
    """Run the steps after the sweep. The tag that marks the retraining as finished is set last."""
    decision = _run_gate(settings, store, sweep, summary.fingerprint)
    _push_table(Path(settings.data.path))
    version = store.registry.version_at(settings.alias.registered_model, settings.alias.name)
    summary = replace(
        summary,
        new_rows=int(sweep.tags[NEW_ROWS_TAG]),
        verdict=decision.tags[tags.VERDICT],
        reasons=json.loads(store.artifacts.read_text(decision.id, decision_log.DECISION_FILE))["reasons"],
        version=version or "",
        moved=version is not None and _was_moved(settings, store, sweep, version),
        sweep=sweep.id,
        jobs=[Outcome(**job) for job in json.loads(store.artifacts.read_text(sweep.id, JOBS_FILE))],
        gate_metrics=decision.metrics,
    )
    summary.append_to_files(settings.summary_file, settings.output_file)
    sweep.run.log(tags={RETRAINED_TAG: summary.verdict})
    return summary


def _find_sweep(store: Store, settings: RetrainSettings, wanted_tags: dict[str, str]) -> RunRecord | None:
    """Return the newest finished sweep of a retraining with these tags."""
    return store.runs.find_first(settings.experiment, {**RETRAIN_TAGS, **wanted_tags}, NEWEST_FIRST)


def _rows_at_last_retraining(store: Store, settings: RetrainSettings) -> int:
    """Return the number of table rows of the last finished retraining, or 0 if there is none."""
    sweeps = store.runs.find_latest(settings.experiment, RETRAIN_TAGS, decision_log.HISTORY_LIMIT)
    return next((int(sweep.tags[ROWS_TAG]) for sweep in sweeps if RETRAINED_TAG in sweep.tags), 0)


def _run_sweep(settings: RetrainSettings, store: Store, key: str, summary: RetrainingSummary) -> RunRecord:
    """Run the sweep and return it."""
    sweep_tags = {
        STARTED_BY_TAG: RETRAIN_TAGS[STARTED_BY_TAG],
        KEY_TAG: key,
        tags.DATA: summary.fingerprint,
        ROWS_TAG: str(summary.rows),
        NEW_ROWS_TAG: str(summary.new_rows),
    }
    quoted = (f"+tags.{name.removeprefix(TAG_PREFIX)}='{value}'" for name, value in sweep_tags.items())  # digits stay a string
    run_command("housing.train", "-m", *settings.sweep_overrides, *quoted)
    sweep = _find_sweep(store, settings, {KEY_TAG: key})
    if sweep is None:
        raise HousingError("The sweep did not finish (see its messages above). Run the same command again to resume it.")
    return sweep


def _run_gate(settings: RetrainSettings, store: Store, sweep: RunRecord, fingerprint: str) -> RunRecord:
    """Promote the best run of a sweep and return the decision."""
    best_run = sweep.tags.get(tags.BEST_RUN)
    if best_run is None:
        raise StoreError(
            f"Sweep {sweep.id} has no best run: its jobs were scored on different rows."
            " Remove overrides of data, split, evaluation and max_rows with several values from sweep_overrides."
        )
    decision_tags = {
        tags.RUN_TYPE: "decision",
        tags.CHALLENGER: best_run,
        tags.DATA: fingerprint,
        tags.ALIAS: settings.alias.name,
    }
    previous = store.runs.find_first(settings.alias.experiment, decision_tags, NEWEST_FIRST)
    overrides = [*matching_overrides(PROMOTE_OVERRIDES), *settings.promote_overrides]
    run_command("housing.promote", f"run_id={best_run}", f"alias={settings.alias.name}", *overrides)
    decision = store.runs.find_first(settings.alias.experiment, decision_tags, NEWEST_FIRST)
    if decision is None or (previous is not None and decision.id == previous.id):
        raise StoreError("The gate made no decision (see its messages above). Run the same command again to repeat this step.")
    return decision


def _was_moved(settings: RetrainSettings, store: Store, sweep: RunRecord, version: str) -> bool:
    """Whether the alias moved to the best run of this sweep since it started; an earlier attempt may have moved it."""
    decisions = decision_log.list_decisions(store, settings.alias.experiment, settings.alias.name)
    promoted = any(
        decision.verdict == PROMOTE and decision.version == version and decision.decided_at >= sweep.started_at
        for decision in decisions
    )
    return promoted and store.registry.run_of_version(settings.alias.registered_model, version) == sweep.tags[tags.BEST_RUN]


def _push_table(path: Path) -> None:
    """Push the version of the table that the model was trained on to the DVC remote."""
    if dvc.tracked_version(path) is None:
        show(f"\n{path.name} is not tracked by DVC, so this version exists only here. To keep it: dvc add {path}")
        return
    dvc.add(path)  # a table downloaded from its public source is not in the cache yet
    dvc.push(path)
    show(f"\n{path.name} is in the DVC remote")


@contextmanager
def _exclusive(settings: RetrainSettings) -> Iterator[None]:
    """Hold the lock that allows one retraining of a table at a time in this clone.

    Raises
    ------
    HousingError
        If another retraining holds it for longer than `lock_timeout_seconds`.
    """
    try:
        with file_lock(settings.lock, settings.lock_timeout_seconds):
            yield
    except LockTimeout as error:
        raise HousingError(
            f"Another process has been retraining on table {settings.data.name} for over {settings.lock_timeout_seconds:g} s."
            " Try again after it has finished, or raise lock_timeout_seconds."
        ) from error
