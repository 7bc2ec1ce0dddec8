"""Out-of-fold predictions of training and validation rows."""

import numpy as np
import pytest

from housing.core.errors import ConfigError
from housing.data.split import Split, split
from housing.data.table import Table
from housing.data.units import Units
from housing.training.fitting import FitSettings
from housing.training.out_of_fold import make_folds, predict_out_of_fold
from tests.support.tables import config


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
        FitSettings.from_config(cfg), rentals, parts, make_folds(parts, 3, seed=0), lambda number, _: progress.append(number)
    )
    np.testing.assert_array_equal(result.rows, np.union1d(parts.train, parts.valid))
    assert np.corrcoef(result.predicted, rentals.target[result.rows])[0, 1] > 0.95
    assert 5 < result.rounds["xgboost"] < 700 and progress == [1, 2, 3]
