"""Cache of fitted features."""

import numpy as np

from housing.data.split import Rows
from housing.data.table import Table
from housing.fitting.estimators import FittedFeatures, fit_features
from housing.fitting.feature_cache import FeatureCache
from housing.fitting.fitting import FitSettings
from tests.support.tables import config


def get(cache: FeatureCache, table: Table, rows: Rows, key: str = "key", validation: Rows | None = None) -> FittedFeatures:
    """Return the features of some rows from a cache."""
    specs = FitSettings.from_config(config("train", "data=rentals", "features=none")).specs
    return cache.get_or_fit(key, rows, validation, lambda: fit_features(specs, 0, table, rows, validation))


def test_equal_features_of_equal_rows_are_fitted_once(rentals: Table) -> None:
    cache, rows = FeatureCache(10**9), np.arange(100)
    first = get(cache, rentals, rows)
    assert get(cache, rentals, rows.copy()) is first
    assert get(cache, rentals, rows, key="other") is not first
    assert get(cache, rentals, np.arange(1, 101)) is not first
    assert get(cache, rentals, rows, validation=np.arange(100, 120)) is not first


def test_the_features_that_were_not_used_for_longest_leave_a_full_cache(rentals: Table) -> None:
    rows = np.arange(100)
    size = get(FeatureCache(0), rentals, rows).columns.nbytes
    cache = FeatureCache(2 * size)
    first, second = get(cache, rentals, rows, "first"), get(cache, rentals, rows, "second")
    assert get(cache, rentals, rows, "first") is first
    get(cache, rentals, rows, "third")
    assert get(cache, rentals, rows, "first") is first
    assert get(cache, rentals, rows, "second") is not second
