"""Large tables: XGBoost reads columns chunk by chunk, and fits the same model, to the last bit, as on one array."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from housing.data.split import split
from housing.data.table import Table
from housing.fitting import estimators
from housing.fitting.estimators import Model, export_boosters
from housing.fitting.feature_cache import FeatureCache
from housing.fitting.fitting import FitSettings, fit
from housing.streaming.column_chunks import ColumnChunks
from housing.training.build import BuildSettings, build
from tests.support.tables import config

FAST = ("model.estimator.n_estimators=60", "model.estimator.learning_rate=0.3")
ENCODED = ("features.encoding.method=target_mean", "features.encoding.max_one_hot_levels=0")
CASES = [
    ("towns", "features=none", "model=xgboost", *FAST),
    ("towns", "features=static", "model=xgboost", *FAST, "model.early_stopping=3"),
    ("towns", "features=landmarks", "model=xgboost", *FAST, "target.transform=log"),
    ("rentals", "features=none", "model=xgboost", *FAST, *ENCODED, "model.early_stopping=3"),
]


def read_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make small tables large ones."""
    monkeypatch.setattr(estimators, "MAX_ROWS_AS_ARRAY", 100)
    monkeypatch.setattr(estimators, "CHUNK_ROWS", 90)


def boosters(model: Model) -> dict[int, bytes]:
    """Return the models of XGBoost, which must be some."""
    exported = export_boosters(model)
    assert exported
    return exported


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_chunks_of_columns_give_the_bits_of_one_array(
    case: tuple[str, ...], weighted: bool, towns: Table, rentals: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {"towns": towns, "rentals": rentals}[case[0]]
    if weighted:
        table = dataclasses.replace(table, weight=np.random.default_rng(0).integers(1, 4, len(table)).astype(np.float64))
    cfg = config("train", f"data={case[0]}", *case[1:])
    settings, parts = FitSettings.from_config(cfg), split(table, cfg.split)
    whole = fit(settings, table, parts.train, parts.valid)
    read_in_chunks(monkeypatch)
    read, compute = list[int](), ColumnChunks.compute

    def count_rows(self: ColumnChunks) -> NDArray[np.float32]:
        read.append(len(self.matrix))
        return compute(self)

    monkeypatch.setattr(ColumnChunks, "compute", count_rows)
    chunked = fit(settings, table, parts.train, parts.valid)
    assert read and max(read) == 90
    assert boosters(chunked) == boosters(whole)
    assert chunked.best_rounds == whole.best_rounds
    np.testing.assert_array_equal(chunked.predict(table.matrix), whole.predict(table.matrix))


def test_members_that_read_chunks_are_selected_and_weighted_as_on_arrays(rentals: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    trees: Any = [f"model.members.{name}.model.estimator.n_estimators=40" for name in ("boosted", "encoded", "shallow")]
    cfg = config("train", "data=rentals", "experiment=default", *trees, "model.selection_folds=1", "interval=none")
    settings, parts = BuildSettings.from_config(cfg), split(rentals, cfg.split)
    whole, metrics = build(settings, rentals, parts, run_id="none")
    read_in_chunks(monkeypatch)
    chunked, metrics_of_chunks = build(settings, rentals, parts, run_id="none")
    costs = {"fit_seconds", "refit_seconds", "latency_us", "rows_per_second"}
    assert metrics.items() - metrics_of_chunks.items() == {(name, metrics[name]) for name in costs}
    assert chunked.card["members"] == whole.card["members"]
    np.testing.assert_array_equal(chunked.predict(rentals.matrix), whole.predict(rentals.matrix))


def test_the_columns_of_another_library_are_an_array_also_if_xgboost_has_cached_its_own(
    towns: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_in_chunks(monkeypatch)
    cache = FeatureCache(10**9)
    for model in ("xgboost", "hist_gradient_boosting", "xgboost"):
        cfg = config("train", "data=towns", "features=none", f"model={model}")
        parts, settings = split(towns, cfg.split), FitSettings.from_config(cfg)
        assert np.isfinite(fit(settings, towns, parts.train, cache=cache).predict(towns.matrix)).all()
