"""Rows and their masked copies: XGBoost fits the same model, to the last bit, as on one array of all rows."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost

from housing.estimators import masked_copies, xgboost_chunks
from housing.estimators.boosting import BoostingFit, fit_boosting
from housing.estimators.weighted_rows import WeightedRows

PARAMETERS = [{}, {"subsample": 0.7, "colsample_bynode": 0.5, "max_bin": 32, "eval_metric": "mae"}]


def fitted(copies: bool, weighted: bool, validated: bool, **parameters: Any) -> xgboost.XGBRegressor:
    """Return an estimator that was fitted on rows and their copies, passed on as such or as one array."""
    random = np.random.default_rng(0)
    columns = random.lognormal(size=(2_500, 5)).astype(np.float32)
    columns[random.random(columns.shape) < 0.1] = np.nan
    target = np.nansum(columns, axis=1) + random.standard_normal(len(columns))
    weight = random.integers(1, 4, len(columns)).astype(np.float64) if weighted else None
    rows, known = slice(0, 2_000), slice(2_000, None)
    training = WeightedRows(columns[rows], target[rows], None if weight is None else weight[rows], [1, 3])
    validation = WeightedRows(columns[known], target[known], None if weight is None else weight[known]) if validated else None
    estimator = xgboost.XGBRegressor(**{"n_estimators": 40, "learning_rate": 0.5, "max_depth": 6, "n_jobs": 1, **parameters})
    data = BoostingFit(training if copies else training.with_copies(), validation, 3, 1)
    fit_boosting(estimator, data, None, lambda *_: None)
    return estimator


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("parameters", PARAMETERS)
def test_chunks_give_the_bits_of_one_array(
    weighted: bool, validated: bool, parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masked_copies, "CHUNK", 300)
    chunked, whole = (fitted(copies, weighted, validated, **parameters) for copies in (True, False))
    assert chunked.get_booster().save_raw("ubj") == whole.get_booster().save_raw("ubj")
    assert chunked.get_params() == whole.get_params()
    assert not validated or 0 < chunked.best_iteration == whole.best_iteration < 39


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_bins_on_disk_give_the_same_bits_and_leave_no_file(
    parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(masked_copies, "CHUNK", 300)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    in_memory = fitted(True, True, True, **parameters)
    monkeypatch.setattr(masked_copies, "MAX_ROWS_IN_MEMORY", 1_000)
    on_disk = fitted(True, True, True, **parameters)
    assert on_disk.get_booster().save_raw("ubj") == in_memory.get_booster().save_raw("ubj")
    assert on_disk.get_params() == in_memory.get_params()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "parameters",
    [{"tree_method": "exact"}, {"booster": "gblinear", "max_depth": None}, {"objective": lambda y, p: (p - y, p * 0 + 1)}],
)
def test_estimators_that_need_one_array_get_it(parameters: dict[str, Any]) -> None:
    assert not xgboost_chunks.can_fit(xgboost.XGBRegressor(**parameters))
    chunked, whole = (fitted(copies, False, False, **parameters) for copies in (True, False))
    assert chunked.get_booster().save_raw("ubj") == whole.get_booster().save_raw("ubj")
