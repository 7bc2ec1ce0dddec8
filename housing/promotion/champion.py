"""Whom a challenger has to beat: the version at the alias that is to move, or the training mean."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.core.errors import BundleError, StoreError
from housing.data.split import Split
from housing.data.table import Table
from housing.promotion.challenger import knows_no_test_row
from housing.promotion.decision import Decision
from housing.schema.column import Vector
from housing.schema.table_schema import Schema
from housing.tracking.store import Store

MEAN = "the training mean"


@dataclass(frozen=True)
class Champion:
    """What the challenger has to beat. `takes` says of each test row whether it can predict it; `predictions` are of these."""

    name: str
    takes: NDArray[np.bool_]
    predictions: Vector
    run_id: str | None = None
    schema: Schema | None = None
    unread: str = ""  # why the version at the alias cannot be read, so that nobody knows what there is to beat


def find(cfg: DictConfig, store: Store, table: Table, parts: Split, decision: Decision) -> Champion:
    """Give the version at the alias; the training mean stands in where there is none, or none that can be compared.

    What cannot be read here may serve all the same, as a bundle of an older format does: that is told in `unread`.
    """
    version = decision.before
    mean = Champion(MEAN, np.ones(len(parts.test), dtype=bool), np.full(len(parts.test), table.target[parts.train].mean()))
    if version is None:
        return mean
    try:
        with store.artifacts.bundle(f"models:/{cfg.registered_model}/{version}") as folder:
            bundle = Bundle.read(folder)
    except BundleError as error:
        return replace(
            mean, unread=f"version {version} at {cfg.to} cannot be read, so nobody knows what there is to beat: {error}"
        )
    if bundle.schema.target.name != table.schema.target.name:
        raise StoreError(
            f"{cfg.registered_model} version {version} predicts {bundle.schema.target.name}, and table {table.schema.name}"
            f" has {table.schema.target.name}: they cannot be compared"
        )
    run = store.runs.get(bundle.card["run_id"])
    if not knows_no_test_row(store, run, cfg, table, parts):
        decision.reasons.append("the champion was fitted on other data or another split: it may know some of the test rows")
    return _scored(f"version {version}", bundle, run.id, table, parts, decision, mean)


def _scored(name: str, bundle: Bundle, run_id: str, table: Table, parts: Split, decision: Decision, mean: Champion) -> Champion:
    matrix, takes = table.matrix[parts.test], np.ones(len(parts.test), dtype=bool)
    if bundle.schema.interface() != table.schema.interface():
        records = table.schema.decode(matrix)
        takes = np.array([bundle.schema.takes(record) for record in records])
        matrix = bundle.schema.encode_records([record for record, taken in zip(records, takes, strict=True) if taken])
        decision.reasons.append(f"{name} has other columns: it can predict {takes.sum():,} of {len(takes):,} test rows")
    if not takes.any():
        decision.reasons.append(f"so {MEAN} stands in for it")
        return Champion(MEAN, mean.takes, mean.predictions, schema=bundle.schema)
    return Champion(name, takes, bundle.predict(matrix), run_id, bundle.schema)
