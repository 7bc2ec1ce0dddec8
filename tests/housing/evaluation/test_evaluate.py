"""Full evaluation of a fitted model: harder splits, distance bands, interval coverage and skipped parts."""

import json
from pathlib import Path

import numpy as np
import pytest

from housing.data.split import Split, split
from housing.data.table import Table, load
from housing.data.units import Units
from housing.evaluation.evaluate import EvaluationSettings, evaluate, refit_config, score_by_distance, within
from housing.evaluation.results import Evaluation
from housing.fitting import fitting
from housing.fitting.fitting import FitSettings
from housing.training.build import BuildSettings, build
from tests.support.tables import SMALL_GEO, config, orders_frame

SMALL = ("model.estimator.n_estimators=20", "interval.estimator.n_estimators=10")


def settings_of(*overrides: str) -> EvaluationSettings:
    """Return the evaluation settings of a promotion."""
    return EvaluationSettings.from_config(config("promote", *overrides))


def test_distance_bands_end_at_round_numbers_and_hold_enough_rows() -> None:
    km = np.array([0.0] * 60 + [0.9] * 60 + [3.0] * 60 + [30.0] * 49)
    bands = score_by_distance(km, np.repeat([1.0, 2.0, -4.0, 8.0], [60, 60, 60, 49]), None)
    assert [(band.min_km, band.max_km, band.rows) for band in bands] == [(0.0, 0.001, 60), (0.001, 1.0, 60), (1.0, None, 109)]
    assert (bands[0].rmse, bands[1].rmse) == (1.0, 2.0)
    assert bands[2].mean_error == pytest.approx((60 * -4 + 49 * 8) / 109)
    assert [band.rows for band in score_by_distance(np.zeros(70), np.ones(70), None)] == [70]


def test_full_evaluation_of_a_table_with_coordinates(towns: Table) -> None:
    cfg = config("train", "data=towns", "features=geo", *SMALL_GEO, *SMALL)
    parts = split(towns, cfg.split)
    bundle = build(BuildSettings.from_config(cfg), towns, parts, run_id="none")[0]
    settings = settings_of("data=towns")
    evaluation = evaluate(settings, cfg, towns, parts, bundle)
    assert not evaluation.skipped
    actual = towns.target[parts.test]
    rmse = np.sqrt(np.mean((bundle.predict(towns.matrix[parts.test]) - actual) ** 2))
    assert evaluation.scores["rmse"] == pytest.approx(rmse)
    assert evaluation.rmse_lower < rmse < evaluation.rmse_upper
    assert [result.split for result in evaluation.harder_splits] == ["grouped", "blocks"]
    for result in evaluation.harder_splits:
        harder = split(towns, settings.harder_splits[result.split])
        error = refit_config(cfg, towns, harder).predict(towns.matrix[harder.test]) - towns.target[harder.test]
        assert result.scores["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)))
        assert (result.train_rows, result.test_rows) == (len(harder.train) + len(harder.valid), len(harder.test))
    blocks = evaluation.harder_splits[1]
    assert sum(band.rows for band in blocks.distance_bands) == blocks.test_rows
    assert {score.kind for score in evaluation.slices} >= {"region", "price band"}
    lower, upper = bundle.predict_interval(towns.matrix[parts.test], 0.9)[1:]
    overall, *by_quintile = evaluation.coverage
    assert overall.coverage == np.mean((lower <= actual) & (actual <= upper))
    assert sum(quintile.rows for quintile in by_quintile) == overall.rows == len(parts.test)
    assert Evaluation.from_dict(json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))) == evaluation
    assert evaluation.metrics()["evaluation_blocks_rmse"] == blocks.scores["rmse"]


def test_parts_that_are_impossible_without_coordinates_or_intervals_are_skipped(rentals: Table) -> None:
    cfg = config("train", "data=rentals", "features=none", "interval=none", *SMALL[:1])
    parts = split(rentals, cfg.split)
    bundle = build(BuildSettings.from_config(cfg), rentals, parts, run_id="none")[0]
    evaluation = evaluate(settings_of("data=rentals"), cfg, rentals, parts, bundle)
    assert not evaluation.harder_splits and not evaluation.coverage
    splits, intervals = evaluation.skipped
    assert splits == "grouped and blocks splits: table rentals has no coordinates, and no column with the role group"
    assert intervals.startswith("intervals: ") and "no intervals" in intervals


def test_harder_split_that_leaves_an_empty_part_is_skipped(towns: Table) -> None:
    cfg = config("train", "data=towns", "features=none", *SMALL)
    parts = split(towns, cfg.split)
    bundle = build(BuildSettings.from_config(cfg), towns, parts, run_id="none")[0]
    settings = settings_of("data=towns", "harder_splits.blocks.cell_degrees=90")  # one block covers the map
    evaluation = evaluate(settings, cfg, towns, parts, bundle)
    assert [result.split for result in evaluation.harder_splits] == ["grouped"]
    assert evaluation.skipped[0].startswith("blocks split: ")


@pytest.mark.parametrize("refit", [True, False])
def test_refit_on_another_split_works_like_the_run(towns: Table, refit: bool) -> None:
    parts = Split(np.arange(300), np.arange(300, 400), np.arange(400, 600))
    cfg = config("train", "data=towns", "features=none", f"refit={refit}", "model.early_stopping=5", *SMALL)
    first = fitting.fit(FitSettings.from_config(cfg), towns, parts.train, parts.valid)
    expected = fitting.fit(FitSettings.from_config(cfg), towns, np.arange(400), first=first) if refit else first
    predicted = refit_config(cfg, towns, parts).predict(towns.matrix[parts.test])
    assert np.array_equal(predicted, expected.predict(towns.matrix[parts.test]))
    assert np.array_equal(predicted, first.predict(towns.matrix[parts.test])) != refit


def test_a_harder_split_keeps_the_past_before_the_future() -> None:
    times = np.arange(100.0)
    parts = Split(np.arange(60), np.arange(65, 80), np.arange(85, 100), Units("days", np.arange(100), times))
    harder = within(parts, Split(np.arange(0, 100, 2), np.arange(1, 100, 4), np.arange(3, 100, 4)))
    assert harder.test.tolist() == [87, 91, 95, 99]
    assert set(harder.train) == set(range(60)) - set(range(3, 60, 4)) and harder.valid.max() < harder.test.min()
    independent = Split(parts.train, parts.valid, parts.test)
    assert within(independent, harder) is harder


def test_the_full_evaluation_of_repeating_customers_holds_out_whole_customers(tmp_path: Path) -> None:
    orders_frame(900).assign(customer=[f"c{row % 300}" for row in range(900)]).to_csv(tmp_path / "orders.csv", index=False)
    common = ("data=orders", f"data.path={tmp_path / 'orders.csv'}")
    cfg = config("train", *common, "features=none", "model=linear", "interval=none")
    table = load(cfg.data)
    parts = split(table, cfg.split)
    bundle = build(BuildSettings.from_config(cfg), table, parts, run_id="none")[0]
    evaluation = evaluate(settings_of(*common), cfg, table, parts, bundle)
    (grouped,) = evaluation.harder_splits
    assert (grouped.split, grouped.distance_bands) == ("grouped", [])
    own = split(table, settings_of(*common).harder_splits["grouped"])
    assert evaluate(settings_of(*common), cfg, table, own, bundle).skipped[0] == "grouped split: it is the split of the run"
