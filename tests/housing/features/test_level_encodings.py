"""Encodings of categories with many levels, against values computed by hand."""

from typing import Any

import numpy as np
import pytest

from housing.core.errors import ConfigError
from housing.features.level_encodings import SUFFIXES, CategoryEncoding
from housing.features.pipeline import Features
from housing.schema.table_schema import Schema
from tests.support.tables import NO_BLOCKS

CODES, TARGET = np.array([0.0, 0.0, np.nan, 1.0]), np.array([1.0, 1.0, 4.0, 8.0])  # the mean target is 3.5

CATEGORY = {"type": "category", "categories": ["p", "q", "r"], "unseen": "other", "nullable": True}
SCHEMA = Schema.from_dict({"name": "t", "columns": {"c": CATEGORY, "y": {"type": "float", "role": "target"}}})


def encoding(method: str = "target_mean", **changes: Any) -> CategoryEncoding:
    """Return an encoding."""
    return CategoryEncoding(**{"method": method, "max_one_hot_levels": 1, "smoothing": 10.0, **changes})


def values(method: str) -> list[list[float]]:
    """Return the numbers of three levels, of which one has no rows, of unseen and of missing values."""
    return encoding(method).level_values(CODES, TARGET, np.ones(4), 3).T.tolist()


def test_means_are_smoothed_and_shares_count_rows() -> None:
    means = [37 / 12, 43 / 11, 3.5, 3.5, 39 / 11]
    assert values("target_mean") == [pytest.approx(means)]
    assert values("target_mean_and_share") == [pytest.approx(means), [0.5, 0.25, 0.0, 0.0, 0.25]]


def test_the_order_is_that_of_the_means_and_an_unseen_level_is_where_the_overall_mean_is() -> None:
    assert values("ordered") == [pytest.approx([1 / 6, 5 / 6, 1 / 3, 1 / 3, 1 / 2])]


@pytest.mark.parametrize("method", SUFFIXES)
def test_training_rows_do_not_see_their_own_targets(method: str) -> None:
    random = np.random.default_rng(0)
    codes, noise, weight = random.integers(0, 500, 1000).astype(float), random.normal(0, 1, 1000), np.ones(1000)
    out_of_fold = encoding(method).out_of_fold_values(codes, noise, weight, 500)[:, 0]
    in_fold = encoding(method).level_values(codes, noise, weight, 500)[codes.astype(int), 0]
    assert abs(np.corrcoef(out_of_fold, noise)[0, 1]) < 0.1
    assert np.corrcoef(in_fold, noise)[0, 1] > 0.5


def features(**changes: Any) -> Features:
    """Return features of a table with a category of three levels, which are many."""
    return Features(SCHEMA, {**NO_BLOCKS, "encoding": {"max_one_hot_levels": 2, "smoothing": 10, **changes}}, "impute")


@pytest.mark.parametrize("method", SUFFIXES)
def test_new_rows_get_the_numbers_of_their_level_and_a_restored_state_the_same(method: str) -> None:
    fitted = features(method=method)
    assert fitted.names == [f"c_{suffix}" for suffix in SUFFIXES[method]]
    fitted.fit_transform(CODES[:, None], TARGET)
    rows = np.array([[2.0], [np.nan], [3.0], [0.0]])
    expected = encoding(method).level_values(CODES, TARGET, np.ones(4), 3)[[2, 4, 3, 0]]
    assert fitted.transform(rows).tobytes() == expected.tobytes()
    assert Features.restore(SCHEMA, *fitted.state()).transform(rows).tobytes() == expected.tobytes()


def test_one_hot_applies_to_any_number_of_levels_and_few_levels_are_always_one_hot() -> None:
    names = ["c=p", "c=q", "c=r", "c=missing"]
    assert features(method="one_hot").names == names
    assert features(method="auto", max_one_hot_levels=3).names == names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "hash"}, "encoding.method must be one of auto, one_hot, target_mean, .*got 'hash'"),
        ({"method": "ordered", "smoothing": 0}, "smoothing must be a number above 0 .got 0"),
        ({"method": "ordered", "max_one_hot_levels": -1}, "max_one_hot_levels must be a whole number, at least 0 .got -1"),
        ({"method": "ordered", "folds": 5}, "features.encoding: .*folds"),
        ({"method": "auto"}, "encoding.method is auto, which training replaces"),
    ],
)
def test_a_setting_that_cannot_work_is_an_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        features(**changes)
