"""Who is judged: a run, or the version at another alias, and whether the test rows are fair to judge it by."""

import json
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from housing.core.errors import ConfigError, StoreError
from housing.data.split import Split, is_stable
from housing.data.table import Table, parse_schema
from housing.runs.export import RUN_ID_KEY
from housing.runs.outcome import Outcome
from housing.schema.table_schema import Schema
from housing.sweeps.ranking import best_outcome
from housing.sweeps.sweep import JOBS_FILE
from housing.tracking import tags as tracking
from housing.tracking.runs import RunRecord
from housing.tracking.store import Store

SELECTORS = ("run_id", "sweep", "metrics_files")


@dataclass(frozen=True)
class Challenger:
    """A run, and the version that it is already where it comes from another alias."""

    run: RunRecord
    version: str | None = None


def find_challenger(cfg: DictConfig, store: Store, table: Table, parts: Split) -> Challenger:
    """Find what to judge: the version at the alias before, or else the run asked for, or the best on table, columns and split.

    Raises StoreError where there is none, or where it may have been fitted on some of the test rows.
    """
    asked = [name for name in SELECTORS if cfg[name]]
    before = cfg.promotes_from.get(cfg.alias)
    if before is not None:
        if asked:
            raise ConfigError(f"{asked[0]} is given; alias={cfg.alias} takes the version at {before} and nothing else")
        return _version_at_alias(before, cfg, store, table, parts)
    if len(asked) > 1:
        raise ConfigError(f"{' and '.join(asked)} are given; allowed: one of them")
    return Challenger(_requested_run(cfg, store, table, parts) if asked else _best_run(cfg, store, table, parts))


def _version_at_alias(alias: str, cfg: DictConfig, store: Store, table: Table, parts: Split) -> Challenger:
    version = store.registry.version_at(cfg.registered_model, alias)
    if version is None:
        raise StoreError(
            f"{cfg.registered_model} has no version at {alias}, and {cfg.alias} takes the one that is there;"
            f" first: python -m housing.promote data={cfg.data.name}"
        )
    run = store.runs.get(store.registry.run_of_version(cfg.registered_model, version))
    if not test_rows_unseen(store, run, cfg, table, parts):
        raise StoreError(
            f"version {version} at {alias} was fitted on other data or another split: it may know some of the test rows."
            f" Promote a run on the present ones to {alias} first, or call with the data and split of the run"
        )
    return Challenger(run, version)


def test_rows_unseen(store: Store, run: RunRecord, cfg: DictConfig, table: Table, parts: Split) -> bool:
    """Whether a run was fitted on none of the test rows for certain: the same split, or one in which a row never moves."""
    if (run.tags.get(tracking.DATA), run.tags.get(tracking.SPLIT)) == (table.fingerprint, parts.fingerprint()):
        return True
    then = store.artifacts.read_config(run.id)
    return (
        is_stable(cfg.split) and then.split == cfg.split and _key_columns(parse_schema(then.data)) == _key_columns(table.schema)
    )


def _key_columns(schema: Schema) -> list[tuple[object, ...]]:
    return [(column.name, column.type, column.categories) for column in schema.key]


def _best_run(cfg: DictConfig, store: Store, table: Table, parts: Split) -> RunRecord:
    tags = {tracking.RUN_TYPE: "run", tracking.DATA: table.fingerprint, tracking.SPLIT: parts.fingerprint()}
    tags |= {tracking.COLUMNS: table.schema.interface_hash(), tracking.EVALUATION: cfg.evaluation}
    found = store.runs.find_first(cfg.experiment_name, tags, f"metrics.{cfg.metric} ASC")
    if found is None:
        raise StoreError(
            f"experiment {cfg.experiment_name} has no finished run on this table, its columns and this split"
            f" with evaluation={cfg.evaluation}; train first:"
            f" python -m housing.train -m data={cfg.data.name} model=linear,decision_tree,xgboost"
        )
    return found


def _requested_run(cfg: DictConfig, store: Store, table: Table, parts: Split) -> RunRecord:
    run = (
        _best_of_metrics_files(cfg, store) if cfg.metrics_files else store.runs.get(cfg.run_id or _best_run_of_sweep(cfg, store))
    )
    _require_comparable(run, table, parts)
    return run


def _best_run_of_sweep(cfg: DictConfig, store: Store) -> str:
    best = best_outcome(
        [Outcome(**outcome) for outcome in json.loads(store.artifacts.read_text(cfg.sweep, JOBS_FILE))], cfg.metric
    )
    if best is None:
        raise StoreError(f"sweep {cfg.sweep} has no finished run")
    return str(best.run_id)


def _best_of_metrics_files(cfg: DictConfig, store: Store) -> RunRecord:
    """Give the run with the least metric of those that files name. Raises StoreError where this store does not know it."""
    try:
        read = {name: json.loads(Path(name).read_text(encoding="utf-8")) for name in cfg.metrics_files}
        best = min(read, key=lambda name: float(read[name][cfg.metric]))
        run_id = str(read[best][RUN_ID_KEY])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"metrics_files={list(cfg.metrics_files)}: {type(error).__name__}: {error}; allowed: files that housing.train export= wrote"
        ) from error
    try:
        return store.runs.get(run_id)
    except StoreError as error:
        raise StoreError(
            f"{error}, which {best} names: that file is from another place or time, such as DVC's cache. Fit it here"
            " (dvc repro --force), or name the store that has the run (mlflow=server)"
        ) from error


def _require_comparable(run: RunRecord, table: Table, parts: Split) -> None:
    if run.status != "FINISHED" or run.tags.get(tracking.RUN_TYPE) != "run":
        raise StoreError(
            f"run {run.id} is a {run.tags.get(tracking.RUN_TYPE)} that is {run.status}; allowed: a run that is FINISHED"
        )
    for what, tag, present in (("table", tracking.DATA, table.fingerprint), ("split", tracking.SPLIT, parts.fingerprint())):
        if run.tags.get(tag) != present:
            raise StoreError(
                f"run {run.id} was fitted on another {what} ({run.tags.get(tag)}) than the present one ({present});"
                " train again, or call promote with the data and split of the run"
            )
