"""Out-of-fold predictions of training and validation rows."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from housing.core.errors import ConfigError, TrialPruned
from housing.data.split import Split, split
from housing.data.table import Table
from housing.data.units import Units
from housing.fitting.feature_cache import FeatureCache
from housing.fitting.fitting import FitSettings
from housing.training.out_of_fold import make_folds, predict_out_of_fold
from tests.support.tables import config, require_library


def parts_with(units: Units | None) -> Split:
    """Return a split of 60 rows, the last 12 of which are test rows."""
    rows = np.arange(60)
    return Split(rows[:40], rows[40:48], rows[48:], units)


def test_each_training_and_validation_row_is_in_one_fold() -> None:
    folds = make_folds(parts_with(None), 4, seed=0)
    np.testing.assert_array_equal(np.sort(np.concatenate([fold for _, fold in folds])), np.arange(48))
    for fit_rows, fold in folds:
        np.testing.assert_array_equal(np.union1d(fit_rows, fold), np.arange(48))


def test_rows_of_a_unit_are_in_one_fold() -> None:
    units = Units("customers", np.arange(60) // 4)
    for fit_rows, fold in make_folds(parts_with(units), 4, seed=0):
        assert not set(units.of_row[fit_rows]) & set(units.of_row[fold])


def test_folds_of_a_split_by_time_follow_their_training_rows_after_the_gap() -> None:
    times = np.arange(60.0)
    for fit_rows, fold in make_folds(parts_with(Units("days", np.arange(60), times)), 4, seed=0, gap=2.0):
        assert times[fit_rows].max() < times[fold].min() - 2.0


def test_more_folds_than_units_are_refused() -> None:
    with pytest.raises(ConfigError, match="48 training and validation rows cannot be divided into 5 folds"):
        make_folds(parts_with(Units("customers", np.arange(60) % 3)), 5, seed=0)


def test_predictions_belong_to_their_rows_and_early_stopping_is_recorded(rentals: Table) -> None:
    cfg = config("train", "data=rentals", "features=none", "model.early_stopping=5", "model.estimator.learning_rate=0.3")
    parts = split(rentals, cfg.split)
    progress: list[int] = []
    result = predict_out_of_fold(
        FitSettings.from_config(cfg), rentals, parts, make_folds(parts, 3, seed=0), lambda fitted, _: progress.append(len(fitted))
    )
    np.testing.assert_array_equal(result.rows, np.union1d(parts.train, parts.valid))
    assert np.corrcoef(result.predicted, rentals.target[result.rows])[0, 1] > 0.95
    assert 5 < result.rounds["xgboost"] < 700 and progress == [1, 2, 3]


@pytest.mark.parametrize("model", ["xgboost", "lightgbm", "catboost", "hist_gradient_boosting", "extra_trees"])
def test_fits_side_by_side_that_share_features_predict_what_single_fits_predict(rentals: Table, model: str) -> None:
    require_library(model)
    boosted = [] if model == "extra_trees" else ["model.early_stopping=5", "model.estimator.learning_rate=0.3"]
    cfg = config("train", "data=rentals", "features=none", f"model={model}", *boosted)
    parts = split(rentals, cfg.split)
    folds, cache = make_folds(parts, 4, seed=0), FeatureCache(10**9)
    one_core, cores = (replace(FitSettings.from_config(cfg), n_threads=n_threads) for n_threads in (1, 4))
    alone = predict_out_of_fold(one_core, rentals, parts, folds)
    for _ in range(2):  # with an empty cache, and with one that has the features
        shared = predict_out_of_fold(cores, rentals, parts, folds, cache=cache)
        np.testing.assert_allclose(alone.predicted, shared.predicted, rtol=1e-12)  # threads of a forest add up in any order
        assert alone.rounds == shared.rounds


def test_an_exception_in_a_fold_stops_the_others(rentals: Table) -> None:
    endless = config("train", "data=rentals", "features=none", "model.estimator.n_estimators=100000000", "n_threads=2")
    parts = split(rentals, endless.split)
    threads: list[int] = []  # of the fits that reported a round, the one that is stopped first

    def stop_first(*_: object) -> None:
        threads.append(threading.get_ident())
        if threads[-1] == threads[0]:
            raise TrialPruned("enough")

    with pytest.raises(TrialPruned, match="enough|another fold"):
        predict_out_of_fold(FitSettings.from_config(endless), rentals, parts, make_folds(parts, 2, seed=0), on_round=stop_first)
