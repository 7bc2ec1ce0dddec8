"""The champion: the version that the challenger must beat."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from housing.bundle.bundle import Bundle
from housing.core.errors import BundleError, StoreError
from housing.promotion.settings import AliasSettings
from housing.promotion.test_set import TestSet
from housing.schema.column import Vector
from housing.schema.table_schema import Schema
from housing.tracking.store import Store

BASELINE = "the training mean"


@dataclass(frozen=True)
class Champion:
    """Predictions of the current model on the test set.

    Attributes
    ----------
    predictable
        Mask over the test rows: True if this model accepts the row.
    predictions
        Predictions for the `predictable` rows, in the target's unit.
    run_id
        The run of the model, or None for the baseline.
    schema
        The schema of the version at the alias, or None if the alias is unset.
    unreadable_reason
        Why the version at the alias could not be loaded, or "" if it was. The gate must not replace a model it could not score.
    """

    name: str
    predictable: NDArray[np.bool_]
    predictions: Vector
    run_id: str | None = None
    schema: Schema | None = None
    unreadable_reason: str = ""


def find_champion(alias: AliasSettings, version: str | None, store: Store, test_set: TestSet, reasons: list[str]) -> Champion:
    """Return the version at the alias, or a baseline that predicts the training mean if there is none that can be scored.

    What limits the comparison is added to `reasons`.

    Raises
    ------
    StoreError
        If the version predicts another target or its artifacts are unavailable.
    """
    baseline = Champion(BASELINE, np.ones(len(test_set), dtype=bool), np.full(len(test_set), test_set.training_mean))
    if version is None:
        return baseline
    try:
        with store.artifacts.bundle(f"models:/{alias.registered_model}/{version}") as directory:
            bundle = Bundle.read(directory)
    except BundleError as error:  # a server may still serve it, for example a bundle of an older format
        return replace(baseline, unreadable_reason=f"version {version} at {alias.name} could not be read for comparison: {error}")
    schema = test_set.table.schema
    if bundle.schema.target.name != schema.target.name:
        raise StoreError(
            f"Version {version} of {alias.registered_model} predicts {bundle.schema.target.name!r}, but the target of table"
            f" {schema.name} is {schema.target.name!r}. Use another registered_model for another target."
        )
    run = store.runs.get(bundle.card["run_id"])
    if not test_set.is_unseen_by(run, store.artifacts):
        reasons.append("the champion was fitted on another table or split and may have seen some of the test rows")
    return _score_champion(f"version {version}", bundle, run.id, test_set, reasons, baseline)


def _score_champion(
    name: str, bundle: Bundle, run_id: str, test_set: TestSet, reasons: list[str], baseline: Champion
) -> Champion:
    predictable = np.ones(len(test_set), dtype=bool)
    if bundle.schema.interface() == test_set.table.schema.interface():
        matrix = test_set.matrix_for(bundle.schema)
    else:
        test = test_set.table.take(test_set.parts.test)
        records = test.schema.decode(test.matrix, test.texts)
        predictable = np.array([bundle.schema.can_encode(record) for record in records])
        accepted = [record for record, accepts in zip(records, predictable, strict=True) if accepts]
        matrix = bundle.schema.encode_records(accepted)
        reasons.append(f"{name} has other columns and accepts {predictable.sum():,} of {len(predictable):,} test rows")
    if not predictable.any():
        reasons.append(f"the challenger is compared with {BASELINE} instead")
        return replace(baseline, schema=bundle.schema)
    return Champion(name, predictable, bundle.predict(matrix), run_id, bundle.schema)
