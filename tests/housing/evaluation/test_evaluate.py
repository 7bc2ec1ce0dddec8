"""The honest evaluation: its figures against small cases counted by hand, and what it says of them."""

import json
from collections.abc import Mapping

import numpy as np
import pytest
from omegaconf import DictConfig

from housing.core.errors import ConfigError
from housing.data.split import Split, split
from housing.data.table import Table
from housing.evaluation.evaluate import evaluate, refit_config, rmse_interval, score_by_distance
from housing.evaluation.limitations import find_limitations
from housing.evaluation.results import DistanceBand, Evaluation, HarderSplitResult, IntervalCoverage
from housing.evaluation.slices import SliceMask, make_slices, most_correlated_column, quintiles, score_slices, slice_columns
from housing.schema.column import Column
from housing.schema.table_schema import Schema
from housing.training import fitting
from housing.training.build import build
from tests.support.tables import SMALL_GEO, config

SMALL = ("model.estimator.n_estimators=20", "interval.estimator.n_estimators=10")


def table_of(target: list[float], maximum: float | None = None, **columns: list[float]) -> Table:
    """A table of numbers; `north` and `east` are coordinates."""
    roles = {"north": "latitude", "east": "longitude"}
    declared = [Column(name, "float", roles.get(name, "feature")) for name in columns]
    schema = Schema("small", (*declared, Column("price", "float", "target", max=maximum)))
    matrix = np.column_stack([np.array(values, dtype=np.float64) for values in columns.values()])
    return Table(schema, matrix, np.array(target, dtype=np.float64), matrix, "none")


def names(table: Table, data: Mapping[str, object]) -> dict[str, list[int]]:
    """The rows of each slice, by its kind and name."""
    rows = np.arange(len(table))
    return {
        f"{one.kind} {one.name}": np.flatnonzero(one.mask).tolist() for one in make_slices(table, rows, DictConfig(dict(data)))
    }


def test_a_slice_is_scored_against_all_rows() -> None:
    where = np.array([True, True, False, False])
    (one,) = score_slices([SliceMask("kind", "name", where)], np.array([1.0, 5.0, 2.0, 2.0]), np.array([0.0, 2.0, 2.0, 2.0]))
    assert (one.rows, one.mean_error) == (2, 2.0)
    assert one.rmse == pytest.approx(np.sqrt(5.0)) and one.ratio == pytest.approx(np.sqrt(5.0) / np.sqrt(2.5))


def test_fifths_keep_equal_values_together_and_name_what_is_missing() -> None:
    found = dict(quintiles(np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10, np.nan])))
    assert list(found) == ["1 to 2", "3 to 4", "5 to 6", "7 to 8", "9 to 10", "missing"]
    assert [where.sum() for where in found.values()] == [2, 2, 2, 2, 2, 1]
    assert list(dict(quintiles(np.array([0.0, 0, 0, 0, 0, 0, 0, 0, 0, 7])))) == ["0 to 0", "7 to 7"]
    assert len(dict(quintiles(np.ones(9)))) == len(dict(quintiles(np.full(3, np.nan)))) == 1


def test_regions_are_the_nearest_declared_places_or_else_quarters_of_the_map() -> None:
    table = table_of([1, 2, 3, 4], north=[10, 10, 20, 20], east=[10, 20, 10, 20])
    points = {"slice_columns": ["north"], "landmarks": {"points": {"old_town": "10 10", "harbour": "20 20"}}}
    found = names(table, points)
    assert found["region old town"][0] == 0 and found["region harbour"][-1] == 3
    quarters = {f"region {name}": [row] for row, name in enumerate(("south-west", "south-east", "north-west", "north-east"))}
    assert quarters.items() <= names(table, {"slice_columns": ["north"]}).items()
    assert not any(name.startswith("region") for name in names(table_of([1, 2], area=[1, 2]), {}))


def test_capped_rows_are_those_at_the_declared_end_and_a_constant_column_makes_no_slice() -> None:
    table = table_of([1, 2, 9, 9], maximum=9.0, area=[5, 5, 5, 5])
    found = names(table, {})
    assert found.pop("capped at 9") == [2, 3]
    assert {name.split()[0] for name in found} == {"price"}


def test_the_leading_column_is_the_one_whose_ranks_go_with_the_target() -> None:
    random = np.random.default_rng(0)
    area = random.uniform(1, 2, 200)
    noise = np.where(random.random(200) < 0.5, np.nan, random.random(200))
    table = table_of(list(np.exp(5 * area)), noise=list(noise), age=[3.0] * 200, area=list(-area))
    assert most_correlated_column(table) == "area" and slice_columns(table, DictConfig({})) == ["area"]
    assert slice_columns(table, DictConfig({"slice_columns": ["age", "noise"]})) == ["age", "noise"]
    with pytest.raises(ConfigError, match="data.slice_columns is empty"):
        slice_columns(table, DictConfig({"slice_columns": []}))
    with pytest.raises(ConfigError, match="has no column size"):
        make_slices(table, np.arange(200), DictConfig({"slice_columns": ["size"]}))


def test_a_category_is_sliced_by_its_levels(rentals: Table) -> None:
    found = make_slices(rentals, np.arange(len(rentals)), DictConfig({"slice_columns": ["quarter", "built"]}))
    assert [one.name for one in found if one.kind == "quarter"] == ["old town", "harbour", "hills"]
    assert [one.name for one in found if one.kind == "built"][-1] == "missing"


def test_the_bootstrap_is_as_wide_as_theory_says_and_the_same_each_time() -> None:
    error = np.random.default_rng(1).normal(0, 1, 4000)
    low, high = rmse_interval(error)
    assert (low, high) == rmse_interval(error)
    assert low < np.sqrt(np.mean(error**2)) < high
    assert high - low == pytest.approx(2 * 1.96 / np.sqrt(2 * 4000), rel=0.15)  # the standard error of a spread
    assert rmse_interval(np.full(10, 3.0)) == (3.0, 3.0)


def test_rings_end_at_round_numbers_and_have_rows_enough() -> None:
    km = np.array([0.0] * 60 + [0.9] * 60 + [3.0] * 60 + [30.0] * 49)
    rings = score_by_distance(km, np.repeat([1.0, 2.0, -4.0, 8.0], [60, 60, 60, 49]))
    assert [(ring.min_km, ring.max_km, ring.rows) for ring in rings] == [(0.0, 0.001, 60), (0.001, 1.0, 60), (1.0, None, 109)]
    assert (rings[0].rmse, rings[1].rmse) == (1.0, 2.0)
    assert rings[2].mean_error == pytest.approx((60 * -4 + 49 * 8) / 109)
    assert [ring.rows for ring in score_by_distance(np.zeros(70), np.ones(70))] == [70]


def figures(**changes: object) -> Evaluation:
    """Figures of a model of which there is nothing to say."""
    plain = {
        "rows": 1000,
        "scores": {"rmse": 1.0},
        "rmse_lower": 0.9,
        "rmse_upper": 1.1,
        "slices": [],
        "harder_splits": [],
        "coverage": [],
    }
    return Evaluation(**{**plain, "limitations": [], "skipped": [], **changes})  # type: ignore[arg-type]


def test_what_must_not_be_trusted_follows_from_the_figures() -> None:
    target = Column("price", "float", "target", unit="EUR")
    error = np.concatenate([np.full(40, 3.0), np.full(40, -0.8), np.zeros(920), np.full(20, 9.0)])

    def cut(kind: str, name: str, start: int, stop: int) -> SliceMask:
        return SliceMask(kind, name, (np.arange(len(error)) >= start) & (np.arange(len(error)) < stop))

    groups = [
        cut("region", "hills", 0, 40),
        cut("region", "coast", 40, 80),
        cut("age", "few", 1000, 1020),
        cut("capped", "at 5", 40, 80),
    ]
    scored = score_slices(groups, error, np.zeros(len(error)))
    rings = [
        DistanceBand(0, 1, 50, 1.0, 0),
        DistanceBand(1, 2, 50, 1.6, 0),
        DistanceBand(2, 5, 50, 1.4, 0),
        DistanceBand(5, 9, 50, 1.6, 0),
        DistanceBand(9, None, 50, 2, 0),
    ]
    found = figures(
        slices=scored,
        harder_splits=[
            HarderSplitResult("grouped", 1, 100, {"rmse": 1.2}),
            HarderSplitResult("blocks", 1, 200, {"rmse": 1.8}, rings),
        ],
        coverage=[
            IntervalCoverage("all", "all rows", 1000, 0.9, 1.0),
            IntervalCoverage("age", "1 to 2", 200, 0.8, 1.0),
            IntervalCoverage("age", "3", 9, 0, 1.0),
        ],
    )
    assert find_limitations(found, target) == [
        (
            "Rows with price capped at 5 are underestimated by 0.8 on average (in EUR),"
            " and their true value may lie farther out (40 rows)."
        ),
        f"Region hills: the RMSE is 3, {3.0 / np.sqrt(np.mean(error**2)):.1f} times that of all rows (40 rows).",
        "Region coast: predictions are too low by 0.8 on average (in EUR) (40 rows).",
        "Rows in areas of which no row is known: the RMSE is 1.8 instead of 1 (200 rows held out).",
        "Rows more than 5 km from the nearest known one: the RMSE is over 1.5 times the 1 of those within 1 km.",
        "age 1 to 2: intervals that ask for 90% cover 80.0% (200 rows).",
    ]
    assert find_limitations(figures(), target) == []


def test_a_table_with_coordinates_is_fitted_again_on_harder_splits(towns: Table) -> None:
    cfg = config("train", "data=towns", "features=geo", *SMALL_GEO, *SMALL)
    parts = split(towns, cfg.split)
    bundle = build(cfg, towns, parts, run_id="none")[0]
    asked = config("promote", "data=towns")
    found = evaluate(asked, cfg, towns, parts, bundle)
    assert not found.skipped
    error = bundle.predict(towns.matrix[parts.test]) - towns.target[parts.test]
    assert (
        found.scores["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)))
        and found.rmse_lower < found.scores["rmse"] < found.rmse_upper
    )
    for one in found.harder_splits:
        its = split(towns, asked.harder_splits[one.split])
        predicted = refit_config(cfg, towns, its).predict(towns.matrix[its.test])
        assert one.scores["rmse"] == pytest.approx(np.sqrt(np.mean((predicted - towns.target[its.test]) ** 2)))
        assert (one.train_rows, one.test_rows) == (len(its.train) + len(its.valid), len(its.test))
    assert [one.split for one in found.harder_splits] == ["grouped", "blocks"]
    assert sum(ring.rows for ring in found.harder_splits[1].distance_bands) == found.harder_splits[1].test_rows
    assert {one.kind for one in found.slices} >= {"region", "price band"}
    lower, upper = bundle.predict_interval(towns.matrix[parts.test], 0.9)[1:]
    actual = towns.target[parts.test]
    assert found.coverage[0].coverage == np.mean((lower <= actual) & (actual <= upper))
    assert sum(one.rows for one in found.coverage[1:]) == found.coverage[0].rows == len(parts.test)
    assert Evaluation.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False))) == found
    assert found.metrics()["evaluation_blocks_rmse"] == found.harder_splits[1].scores["rmse"]


def test_what_cannot_be_had_is_left_out_and_said(rentals: Table, towns: Table) -> None:
    cfg = config("train", "data=rentals", "features=none", "interval=none", *SMALL[:1])
    parts = split(rentals, cfg.split)
    found = evaluate(config("promote", "data=rentals"), cfg, rentals, parts, build(cfg, rentals, parts, run_id="none")[0])
    assert (found.harder_splits, found.coverage) == ([], [])
    assert found.skipped == [
        "grouped and blocks splits: table rentals has no coordinates",
        "intervals: this model has no intervals: it was trained with interval=none",
    ]
    asked = config("promote", "data=towns", "harder_splits.blocks.cell_degrees=90")
    cfg = config("train", "data=towns", "features=none", *SMALL)
    parts = split(towns, cfg.split)
    of_one_cell = evaluate(asked, cfg, towns, parts, build(cfg, towns, parts, run_id="none")[0])
    assert [one.split for one in of_one_cell.harder_splits] == ["grouped"]
    assert of_one_cell.skipped[0].startswith("blocks split: the split leaves no rows for")


@pytest.mark.parametrize("refit", [True, False])
def test_a_fit_on_another_split_is_as_the_runs(towns: Table, refit: bool) -> None:
    parts = Split(np.arange(300), np.arange(300, 400), np.arange(400, 600))
    cfg = config("train", "data=towns", "features=none", f"refit={refit}", "model.early_stopping=5", *SMALL)
    first = fitting.fit(cfg, towns, parts.train, parts.valid)
    expected = fitting.fit(cfg, towns, np.arange(400), rounds=first.best_rounds) if refit else first
    given = refit_config(cfg, towns, parts).predict(towns.matrix[parts.test])
    assert np.array_equal(given, expected.predict(towns.matrix[parts.test]))
    assert np.array_equal(given, first.predict(towns.matrix[parts.test])) != refit
