"""The choice of the encoding of categories with many levels on the validation rows."""

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig

from housing.data.split import Split, split
from housing.data.table import Table, validate_frame
from housing.features.level_encodings import SUFFIXES
from housing.fitting.encoding_choice import choose_encoding
from housing.fitting.fitting import FitSettings
from housing.schema.table_schema import Schema
from housing.scoring.ranking_metric import RankingMetric
from housing.training.build import BuildSettings, build
from tests.support.tables import config

STREETS = Schema.from_dict(
    {
        "name": "streets",
        "columns": {"street": {"type": "category", "categories": "auto"}, "price": {"type": "float", "role": "target"}},
    }
)
OPTIONS = ("data=rentals", "features=none", "interval=none", "model=linear")


@pytest.fixture(scope="module")
def streets() -> Table:
    """A table of 40 streets, with few houses in cheap streets and many in expensive ones."""
    random = np.random.default_rng(0)
    street = np.repeat(np.arange(40), np.arange(1, 41))
    price = street + random.normal(0, 20, len(street))
    return validate_frame(STREETS, pd.DataFrame({"street": [f"street {number}" for number in street], "price": price}), digest="")


@pytest.fixture(scope="module")
def parts(streets: Table) -> Split:
    """A random split of the streets."""
    order = np.random.default_rng(1).permutation(len(streets))
    train, valid, test = (np.sort(rows) for rows in np.split(order, [500, 660]))
    return Split(train, valid, test)


def settings(cfg: DictConfig) -> FitSettings:
    """Return the settings of fits."""
    return FitSettings.from_config(cfg)


def test_the_best_method_on_validation_rows_is_chosen_logged_and_written_to_the_card(
    streets: Table, parts: Split, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = config("train", *OPTIONS)
    with caplog.at_level(logging.INFO):
        bundle, metrics = build(BuildSettings.from_config(cfg), streets, parts, run_id="none")
    encoding = bundle.card["encoding"]
    assert set(encoding["rmse"]) == set(SUFFIXES)
    assert encoding["method"] == "target_mean_and_share" == min(encoding["rmse"], key=encoding["rmse"].__getitem__)
    assert metrics["rmse"] == pytest.approx(encoding["rmse"]["target_mean_and_share"], rel=1e-5)
    assert bundle.ensemble.features[0].config["encoding"]["method"] == "target_mean_and_share"
    assert "Encoding of street, chosen by rmse on the validation rows: target_mean_and_share (target_mean " in caplog.text


def test_a_metric_of_which_more_is_better_chooses_the_highest(streets: Table, parts: Split) -> None:
    choice = choose_encoding(settings(config("train", *OPTIONS)), streets, parts, RankingMetric("r2"))
    assert choice.method is not None and choice.scores[choice.method] == max(choice.scores.values())


def test_test_rows_have_no_say(streets: Table, parts: Split) -> None:
    cfg = config("train", *OPTIONS)
    target = streets.target.copy()
    target[parts.test] = 1e6
    first, second = (
        choose_encoding(settings(cfg), table, parts, RankingMetric("mae")).scores
        for table in (streets, replace(streets, target=target))
    )
    assert first == second


def test_nothing_is_fitted_without_many_levels_or_with_a_declared_method(rentals: Table, streets: Table, parts: Split) -> None:
    plain = settings(config("train", *OPTIONS, "features.encoding.max_one_hot_levels=3"))
    choice = choose_encoding(plain, rentals, split(rentals, config("train", *OPTIONS).split), RankingMetric())
    assert choice.method is None and choice.settings is plain
    declared = settings(config("train", *OPTIONS, "features.encoding.method=ordered"))
    assert choose_encoding(declared, streets, parts, RankingMetric()).settings is declared
