"""Weights of rows: a row of weight 2 counts like the row twice, in fits and in scores."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from housing.bundle.bundle import Bundle
from housing.bundle.conformal import Calibration, Interval
from housing.core.errors import ConfigError
from housing.data.split import split
from housing.data.table import Table, load, validate_frame
from housing.evaluation.bootstrap import bootstrap_interval, compute_score, weigh_error
from housing.evaluation.evaluate import score_by_distance
from housing.evaluation.slices import SliceMask, score_slices
from housing.features.encoding import median, weighted_median
from housing.features.level_encodings import CategoryEncoding
from housing.features.target_encoding import SpatialTargetEncoding
from housing.fitting.fitting import FitSettings, fit
from housing.promotion.gate import effective_rows
from housing.promotion.promotion import promote
from housing.runs.export import export
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema
from housing.scoring.metrics import score
from housing.scoring.ranking_metric import RankingMetric
from housing.tracking import store as tracking_store
from housing.tracking import tags
from housing.training.build import BuildSettings, build
from housing.training.cross_validation import CrossValidationSettings, cross_validate
from tests.support.tables import TABLES, config, orders_frame, rentals_frame, train

PLAIN = ("data=rentals", "features=none", "interval=none")
ERROR, ACTUAL = np.array([1.0, -2.0, 4.0, 0.0]), np.array([3.0, 5.0, 1.0, 3.0])
WEIGHT = np.array([2.0, 1.0, 1.0, 4.0])
TWICE = WEIGHT.astype(int)


def weighted_rentals(copies: Vector) -> tuple[Table, Table]:
    """Return the rentals with a column of weights, and a table that repeats each row as often as its weight says."""
    declared: Any = OmegaConf.to_container(OmegaConf.load(TABLES / "data" / "rentals.yaml"))
    schema = Schema.from_dict({**declared, "columns": {**declared["columns"], "copies": {"type": "float", "role": "weight"}}})
    frame = rentals_frame(len(copies)).assign(copies=copies)
    repeated = frame.loc[np.repeat(frame.index, copies.astype(int))].assign(copies=1.0).reset_index(drop=True)
    return validate_frame(schema, frame, ""), validate_frame(schema, repeated, "")


@pytest.fixture(scope="module")
def tables() -> tuple[Table, Table]:
    """The rentals with the weights 1, 2 and 3, and the same with repeated rows."""
    return weighted_rentals(np.random.default_rng(0).integers(1, 4, 300).astype(np.float64))


@pytest.mark.parametrize(
    ("model", "precision"),
    [
        (("model=linear",), 1e-9),
        (("model=decision_tree", "model.estimator.min_samples_leaf=1", "model.estimator.max_depth=5"), 1e-12),
        (
            (
                *("model=xgboost", "model.early_stopping=10", "model.estimator.n_estimators=60", "+model.estimator.max_bin=2000"),
                *("model.estimator.subsample=1", "model.estimator.colsample_bynode=1"),
            ),
            1e-5,
        ),
    ],
    ids=["linear", "tree", "xgboost"],
)
def test_a_row_of_weight_2_is_fitted_like_the_row_twice(
    tables: tuple[Table, Table], model: tuple[str, ...], precision: float
) -> None:
    weighted, repeated = tables
    settings = FitSettings.from_config(config("train", *PLAIN, *model))
    assert weighted.weight is not None
    first = np.repeat(np.arange(len(weighted)), weighted.weight.astype(int)) < 200
    fitted = fit(settings, weighted, np.arange(200), np.arange(200, 300))
    expected = fit(settings, repeated, np.flatnonzero(first), np.flatnonzero(~first))
    np.testing.assert_allclose(fitted.predict(weighted.matrix), expected.predict(weighted.matrix), rtol=precision)
    assert fitted.best_rounds == expected.best_rounds
    unweighted = fit(settings, validate_frame(weighted.schema, rentals_frame(300).assign(copies=1.0), ""), np.arange(200))
    assert np.abs(unweighted.predict(weighted.matrix) - expected.predict(weighted.matrix)).max() > 0.1


def test_a_row_of_weight_2_is_scored_like_the_row_twice_exactly() -> None:
    error, actual, km = (np.repeat(values, TWICE) for values in (ERROR, ACTUAL, np.array([0.0, 0.0, 9.0, 9.0])))
    assert score(ACTUAL + ERROR, ACTUAL, WEIGHT) == score(actual + error, actual, None)
    mask = np.array([True, False, True, False])
    whole = SliceMask("kind", "all", np.ones(4, dtype=bool)), SliceMask("kind", "some", mask)
    twice = SliceMask("kind", "all", np.ones(8, dtype=bool)), SliceMask("kind", "some", np.repeat(mask, TWICE))
    for weighted, repeated in zip(
        score_slices([*whole], ACTUAL + ERROR, ACTUAL, WEIGHT), score_slices([*twice], actual + error, actual, None), strict=True
    ):
        assert (weighted.rmse, weighted.mean_error, weighted.ratio) == (repeated.rmse, repeated.mean_error, repeated.ratio)
    (band,), (expected,) = score_by_distance(np.zeros(4), ERROR, WEIGHT), score_by_distance(0 * km, error, None)
    assert (band.rmse, band.mean_error, band.rows) == (expected.rmse, expected.mean_error, 4)
    for metric in ("rmse", "mae"):
        assert compute_score(weigh_error(ERROR, metric, WEIGHT), metric) == pytest.approx(compute_score(error, metric), rel=1e-12)


def test_level_means_and_medians_count_a_row_of_weight_2_twice() -> None:
    codes = np.array([0.0, 1.0, 1.0, np.nan])
    encoding = CategoryEncoding("target_mean", max_one_hot_levels=1, smoothing=10)
    means = encoding.level_values(np.repeat(codes, TWICE), np.repeat(ACTUAL, TWICE), np.ones(8), 2)
    np.testing.assert_array_equal(encoding.level_values(codes, ACTUAL, WEIGHT, 2), means)
    random = np.random.default_rng(0)
    for _ in range(50):
        values, weight = random.integers(0, 9, 12).astype(np.float64), random.integers(1, 4, 12)
        values[:2] = np.nan
        assert weighted_median(values, weight.astype(np.float64)) == median(np.repeat(values, weight))
        assert weighted_median(values, np.ones(12)) == median(values)


def test_the_encoding_of_locations_is_a_weighted_mean(towns: Table) -> None:
    def mean(weight: Vector | None) -> float:
        block = SpatialTargetEncoding(towns.schema, n_clusters=[1], folds=2, smoothing=10, seed=0)
        block.fit_transform(towns.matrix, towns.target, weight)
        return float(block.arrays["means"][0, 0])

    weight = np.where(towns.target > np.median(towns.target), 3.0, 1.0)
    assert mean(weight) == pytest.approx(np.average(towns.target, weights=weight))
    assert mean(None) == mean(np.ones(len(towns))) == pytest.approx(towns.target.mean())


def test_cross_validation_weighs_its_fits_and_scores(tables: tuple[Table, Table]) -> None:
    table = tables[0]
    cfg = config("train", *PLAIN, "model=linear", "evaluation=kfold")
    settings, parts = CrossValidationSettings.from_config(cfg.evaluation), split(table, cfg.split)
    assert settings is not None
    rows, predicted = np.sort(np.concatenate([parts.train, parts.valid])), np.empty(len(table))
    for fit_indices, fold in settings.create_folds().split(rows):
        model = fit(FitSettings.from_config(cfg), table, rows[fit_indices])
        predicted[rows[fold]] = model.predict(table.matrix[rows[fold]])
    scores = cross_validate(settings, FitSettings.from_config(cfg), RankingMetric(), table, parts)
    assert scores == score(predicted[rows], table.target[rows], table.weight_of(rows))
    assert scores != score(predicted[rows], table.target[rows], None)


@pytest.mark.parametrize(
    ("key", "name"), [("model.estimator", "model.estimator of linear"), ("interval.estimator", "interval.estimator")]
)
def test_an_estimator_without_weights_is_refused(tables: tuple[Table, Table], key: str, name: str) -> None:
    cfg = config("train", "data=rentals", "features=none", "model=linear")
    OmegaConf.update(cfg, key, {"_target_": "sklearn.neighbors.KNeighborsRegressor"}, merge=False)
    with pytest.raises(ConfigError) as error:
        build(BuildSettings.from_config(cfg), tables[0], split(tables[0], cfg.split), "none")
    assert str(error.value) == (
        f"{name} must accept weights, because column copies has the role weight (got KNeighborsRegressor, whose fit has no"
        " sample_weight). Use another estimator, or declare copies: {role: ignore}."
    )


class UnitErrors:
    """An error model that expects errors of size 1."""

    def predict(self, columns: Matrix) -> Vector:
        """Return zeros."""
        return np.zeros(len(columns))


def test_intervals_cover_the_weighted_share_of_targets() -> None:
    random = np.random.default_rng(0)
    schema = Schema.from_dict({"name": "t", "columns": {"x": {"type": "float"}, "y": {"type": "float", "role": "target"}}})

    def rows(count: int) -> tuple[Vector, Vector]:
        weight = random.integers(1, 10, count).astype(np.float64)
        return weight * random.normal(size=count), weight

    def coverage(calibration: Calibration) -> float:
        error, weight = rows(20_000)
        zeros = np.zeros(len(error))
        lower, upper = Interval(calibration, UnitErrors()).bounds(schema, zeros[:, None], zeros, 0.8)
        return float(np.average((lower <= error) & (error <= upper), weights=weight))

    error, weight = rows(2000)
    assert coverage(Calibration(error, weight)) == pytest.approx(0.8, abs=0.02)
    assert coverage(Calibration(error)) < 0.75  # rows of high weight have large errors
    equal = Interval(Calibration(error[:19], np.full(19, 3.0)), UnitErrors())
    plain = Interval(Calibration(error[:19]), UnitErrors())
    for share in (0.05, 0.3, 0.5, 0.9, equal.max_coverage):
        upper, expected = (interval.bounds(schema, np.zeros((1, 1)), np.zeros(1), share)[1] for interval in (equal, plain))
        np.testing.assert_array_equal(upper, expected)


def test_resamples_are_scored_with_the_weights_of_their_rows() -> None:
    error = np.random.default_rng(1).normal(size=400)
    plain = bootstrap_interval(error, "rmse", 0.95, 400, 0)
    assert bootstrap_interval(error, "rmse", 0.95, 400, 0, weight=np.full(400, 0.5)) == pytest.approx(plain, rel=1e-12)
    weight = np.where(np.abs(error) > 1, 5.0, 1.0)
    interval = bootstrap_interval(error, "rmse", 0.95, 400, 0, weight=weight)
    assert interval is not None and interval[0] < np.sqrt(np.average(error**2, weights=weight)) < interval[1]


def test_unequal_weights_say_less_about_a_share_than_as_many_equal_rows() -> None:
    inside = np.arange(100) % 10 > 0
    weight = np.where(np.arange(100) % 20 < 10, 9.0, 1.0)
    assert effective_rows(inside, None, None) == 100
    assert effective_rows(inside, None, np.full(100, 3.0)) == pytest.approx(99)  # the variance is estimated
    assert 55 < effective_rows(inside, None, weight) < 65  # 500^2 / (50 * 81 + 50) = 61
    one_dominates = np.where(np.arange(100) == 1, 1000.0, 1.0)
    assert effective_rows(np.ones(100, dtype=bool), None, one_dominates) < 1.3


def test_a_promotion_scores_with_weights(home: Path) -> None:
    orders_frame().to_csv(home / "data" / "orders.csv", index=False)
    outcome = train(home, "data=orders", "model=linear", "features=none", "figures=false")
    cfg = config("train", "data=orders", "features=none", "model=linear")
    table = load(cfg.data)
    parts = split(table, cfg.split)
    store = tracking_store.connect(cfg.mlflow)
    export(cfg, outcome, home / "exported")
    exported = pd.read_csv(home / "exported" / "predictions.csv")
    predicted, actual, weight = (exported[name].to_numpy() for name in ("predicted", "actual", "weight"))
    assert score(predicted, actual, weight)["rmse"] == pytest.approx(outcome.metrics["rmse"])
    decision = promote(config("promote", "data=orders", "evaluate=full"))
    with store.artifacts.bundle(f"models:/{store.runs.get(decision.run_id).tags[tags.MODEL_ID]}") as folder:
        bundle = Bundle.read(folder)
    test = table.encoded_as(bundle.schema).take(parts.test)
    assert test.weight is not None
    predicted = bundle.predict(test.matrix)
    scores = score(predicted, test.target, test.weight)
    assert decision.challenger_metrics == scores != score(predicted, test.target, None)
    mean = np.average(table.target[parts.train], weights=table.weight_of(parts.train))
    assert decision.champion_metrics == score(np.full(len(test), mean), test.target, test.weight)
    assert decision.difference is not None and decision.evaluation is not None
    assert decision.difference.challenger_score == pytest.approx(scores["rmse"])
    _, lower, upper = bundle.predict_interval(test.matrix, 0.9)
    coverage = np.average((lower <= test.target) & (test.target <= upper), weights=test.weight)
    assert decision.evaluation.coverage[0].coverage == pytest.approx(coverage)
    assert decision.evaluation.scores == scores
