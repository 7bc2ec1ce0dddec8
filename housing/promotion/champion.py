"""Whom a challenger has to beat: the version at the alias that is to move, or the training mean."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.core.errors import BundleError, StoreError
from housing.data.split import Split
from housing.data.table import Table
from housing.promotion.challenger import test_rows_unseen
from housing.promotion.decision import Decision
from housing.schema.column import Vector
from housing.schema.table_schema import Schema
from housing.tracking.store import Store

BASELINE = "the training mean"


@dataclass(frozen=True)
class Champion:
    """What the challenger has to beat. `takes` says of each test row whether it can predict it; `predictions` are of these."""

    name: str
    predictable: NDArray[np.bool_]
    predictions: Vector
    run_id: str | None = None
    schema: Schema | None = None
    unreadable_reason: str = ""  # why the version at the alias cannot be read, so that nobody knows what there is to beat


def find_champion(cfg: DictConfig, store: Store, table: Table, parts: Split, decision: Decision) -> Champion:
    """Give the version at the alias; the training mean stands in where there is none, or none that can be compared.

    What cannot be read here may serve all the same, as a bundle of an older format does: that is told in `unread`.
    """
    version = decision.previous_version
    mean = Champion(BASELINE, np.ones(len(parts.test), dtype=bool), np.full(len(parts.test), table.target[parts.train].mean()))
    if version is None:
        return mean
    try:
        with store.artifacts.bundle(f"models:/{cfg.registered_model}/{version}") as folder:
            bundle = Bundle.read(folder)
    except BundleError as error:
        return replace(
            mean,
            unreadable_reason=f"version {version} at {cfg.alias} cannot be read, so nobody knows what there is to beat: {error}",
        )
    if bundle.schema.target.name != table.schema.target.name:
        raise StoreError(
            f"{cfg.registered_model} version {version} predicts {bundle.schema.target.name}, and table {table.schema.name}"
            f" has {table.schema.target.name}: they cannot be compared"
        )
    run = store.runs.get(bundle.card["run_id"])
    if not test_rows_unseen(store, run, cfg, table, parts):
        decision.reasons.append("the champion was fitted on other data or another split: it may know some of the test rows")
    return _score_champion(f"version {version}", bundle, run.id, table, parts, decision, mean)


def _score_champion(
    name: str, bundle: Bundle, run_id: str, table: Table, parts: Split, decision: Decision, baseline: Champion
) -> Champion:
    matrix, takes = table.matrix[parts.test], np.ones(len(parts.test), dtype=bool)
    if bundle.schema.interface() != table.schema.interface():
        records = table.schema.decode(matrix)
        takes = np.array([bundle.schema.can_encode(record) for record in records])
        matrix = bundle.schema.encode_records([record for record, taken in zip(records, takes, strict=True) if taken])
        decision.reasons.append(f"{name} has other columns: it can predict {takes.sum():,} of {len(takes):,} test rows")
    if not takes.any():
        decision.reasons.append(f"so {BASELINE} stands in for it")
        return Champion(BASELINE, baseline.predictable, baseline.predictions, schema=bundle.schema)
    return Champion(name, takes, bundle.predict(matrix), run_id, bundle.schema)
