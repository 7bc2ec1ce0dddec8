"""The logarithm of the target: unbiased predictions, intervals, the choice of `auto`, and the same predictions when served."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.bundle.log_transform import LogTransform
from housing.core.errors import ConfigError
from housing.data.split import Split, split
from housing.data.table import Table
from housing.evaluation.evaluate import refit_config
from housing.fitting.fitting import FitSettings, fit
from housing.promotion.promotion import promote
from housing.runs.reproduction import reproduce
from housing.schema.column import Vector
from housing.schema.table_schema import Schema
from housing.scoring.metrics import score
from housing.scoring.ranking_metric import RankingMetric
from housing.tracking import store as tracking_store
from housing.tracking import tags
from housing.training.build import BuildSettings, build
from housing.training.cross_validation import CrossValidationSettings, cross_validate
from tests.support.server import serving
from tests.support.tables import config, rentals_frame, train
from tests.support.waiting import wait_for

LINEAR = ("data=rentals", "features=none", "model=linear")
TREES = ("data=rentals", "features=none", "model.estimator.n_estimators=60", "model.estimator.learning_rate=0.1")
LOG = "target.transform=log"
ROWS = 5000


def make_table(target: Any) -> Table:
    """Return a table of two columns, whose target is a function of them and of normal noise."""
    random = np.random.default_rng(0)
    columns: dict[str, Any] = {"a": {"type": "float"}, "b": {"type": "float"}, "y": {"type": "float", "role": "target"}}
    matrix = random.uniform(0, 1, (ROWS, 2))
    keys = np.arange(ROWS).astype(bytes).astype(object)
    return Table(
        Schema.from_dict({"name": "t", "columns": columns}), matrix, target(*matrix.T, random.normal(size=ROWS)), keys, "t"
    )


@pytest.fixture(scope="module")
def lognormal() -> Table:
    """A target whose logarithm is linear, with the standard deviation 0.8."""
    return make_table(lambda a, b, noise: np.exp(2 * a - b + 0.8 * noise))


@pytest.fixture(scope="module")
def additive() -> Table:
    """A linear target with noise of a constant size, above 0."""
    return make_table(lambda a, b, noise: 20 + 10 * a - 5 * b + noise)


def prepare(table: Table, *overrides: str) -> tuple[DictConfig, Split]:
    """Return the config of a run and the split of the table."""
    cfg = config("train", *overrides)
    return cfg, split(table, cfg.split)


@pytest.mark.parametrize("model", [LINEAR, TREES], ids=["linear", "xgboost"])
def test_predictions_of_a_lognormal_target_have_its_mean_and_intervals_cover_it(lognormal: Table, model: tuple[str, ...]) -> None:
    cfg, parts = prepare(lognormal, *model, LOG, "interval.estimator.n_estimators=30")
    bundle, metrics = build(BuildSettings.from_config(cfg), lognormal, parts, "none")
    test = lognormal.take(parts.test)
    predicted = bundle.predict(test.matrix)
    true_mean = np.exp(2 * test.matrix[:, 0] - test.matrix[:, 1] + 0.32)
    assert predicted.mean() == pytest.approx(true_mean.mean(), rel=0.08)
    naive = np.exp(bundle.ensemble.predict_untransformed(test.matrix))
    assert naive.mean() < 0.8 * true_mean.mean()  # the exponential of the mean logarithm is exp(-0.8^2 / 2) = 0.73 of the mean
    assert np.abs(predicted / true_mean - 1).mean() < 0.16
    assert bundle.card["target"]["transform"] == "log" and metrics["rmse"] < lognormal.target.std()
    for coverage in (0.5, 0.9, 0.99):
        _, lower, upper = bundle.predict_interval(test.matrix, coverage)
        assert np.mean((lower <= test.target) & (test.target <= upper)) == pytest.approx(coverage, abs=0.04)
        assert (lower > 0).all() and (lower <= predicted).all() and (predicted <= upper).all()


def test_auto_keeps_the_better_transform_and_says_so(lognormal: Table, additive: Table, caplog: pytest.LogCaptureFixture) -> None:
    for table, transform in ((lognormal, "log"), (additive, "none")):
        cfg, parts = prepare(table, *LINEAR, "interval=none", "target.transform=auto")
        with caplog.at_level(logging.INFO):
            bundle, metrics = build(BuildSettings.from_config(cfg), table, parts, "none")
        assert f"target.transform=auto chose {transform}" in caplog.text
        assert bundle.card["target"]["transform"] == transform
        rmse = bundle.card["target"]["validation_rmse"]
        assert min(rmse, key=rmse.get) == transform and rmse[transform] == pytest.approx(metrics["rmse"], rel=1e-5)
        for name in ("none", "log"):
            cfg.target.transform = name
            model = fit(FitSettings.from_config(cfg), table, parts.train, parts.valid)
            valid = table.take(parts.valid)
            assert score(model.predict(valid.matrix), valid.target, None)["rmse"] == pytest.approx(rmse[name], rel=1e-5)
            if name == transform:
                refitted = fit(FitSettings.from_config(cfg), table, np.sort(np.r_[parts.train, parts.valid]), first=model)
                np.testing.assert_allclose(refitted.predict(table.matrix), bundle.predict(table.matrix), rtol=1e-9)


def test_a_target_without_logarithm_is_named_with_its_row(rentals: Table, caplog: pytest.LogCaptureFixture) -> None:
    target = rentals.target.copy()
    cfg, parts = prepare(rentals, *LINEAR, "interval=none", LOG)
    target[parts.valid[:2]], target[parts.test] = 0.0, -5.0  # test rows need no logarithm
    table = dataclasses.replace(rentals, target=target)
    with pytest.raises(ConfigError) as error:
        build(BuildSettings.from_config(cfg), table, parts, "none")
    row = min(parts.valid[:2])
    assert f"target.transform=log needs values above 0 in rent (got 0 in row {row} of the rows with a rent" in str(error.value)
    assert "2 rows in all). Use target.transform=none" in str(error.value)
    cfg.target.transform = "auto"
    with caplog.at_level(logging.INFO):
        bundle, _ = build(BuildSettings.from_config(cfg), table, parts, "none")
    assert bundle.card["target"]["transform"] == "none" and "log needs targets above 0" in caplog.text
    with pytest.raises(ConfigError, match="target.transform must be one of none, log, auto .got 'sqrt'"):
        FitSettings.from_config(config("train", *LINEAR, "target.transform=sqrt"))


def test_without_validation_rows_the_factor_comes_from_rows_that_are_held_out(rentals: Table) -> None:
    cfg, _ = prepare(rentals, *LINEAR, LOG)
    rows = np.arange(100, 400)
    settings = FitSettings.from_config(cfg)
    model = fit(settings, rentals, rows)
    expected = fit(settings, rentals, np.setdiff1d(rows, rows[::10]), rows[::10])
    np.testing.assert_array_equal(model.predict(rentals.matrix), expected.predict(rentals.matrix))


def test_the_factor_is_a_weighted_mean() -> None:
    logs, actual, weight = np.zeros(3), np.array([1.0, 2.0, 6.0]), np.array([2.0, 1.0, 1.0])
    outlier = LogTransform.fit(np.append(logs, -99.0), np.append(actual, 3.0), None)  # a row with an absurd logarithm
    assert outlier.smearing == pytest.approx(4.0)
    assert LogTransform.fit(logs, actual, None).smearing == pytest.approx(3.0)
    assert LogTransform.fit(logs, actual, weight).smearing == pytest.approx(2.5)
    assert np.isfinite(LogTransform(1.3).to_target(np.array([-1e9, 1e9]))).all()
    for factor in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ConfigError, match="smearing factor of a logarithmic target must be a finite number above 0"):
            LogTransform(factor)


@pytest.mark.parametrize(
    "overrides",
    [
        ("features=none", "model.estimator.n_estimators=20"),
        (
            "features=none",
            "model=blend",
            "model.members.near.model.estimator.n_estimators=20",
            "model.members.far.model.estimator.n_estimators=20",
        ),
    ],
    ids=["xgboost", "blend"],
)
def test_a_bundle_of_logarithms_predicts_the_same_after_reading(towns: Table, tmp_path: Path, overrides: tuple[str, ...]) -> None:
    cfg, parts = prepare(towns, "data=towns", LOG, *overrides)
    bundle, metrics = build(BuildSettings.from_config(cfg), towns, parts, "none")
    bundle.write(tmp_path / "bundle")
    restored = Bundle.read(tmp_path / "bundle")
    np.testing.assert_array_equal(restored.predict(towns.matrix), bundle.predict(towns.matrix))
    model = refit_config(cfg, towns, parts)
    np.testing.assert_allclose(bundle.predict(towns.matrix), model.predict(towns.matrix), rtol=1e-4)
    assert metrics["rmse"] < towns.target.std()
    config_file = tmp_path / "bundle" / "ensemble.json"
    assert json.loads(config_file.read_text(encoding="utf-8"))["log_target"] == {"smearing": model.ensemble.transform.smearing}  # type: ignore[union-attr]


def test_predictions_of_logarithms_stay_within_the_bounds_of_the_target(rentals: Table) -> None:
    columns = rentals.schema.to_dict()["columns"]
    low, high = np.quantile(rentals.target, (0.3, 0.7))
    columns["rent"] |= {"min": float(low), "max": float(high)}
    schema = Schema.from_dict({"name": "rentals", "columns": columns})
    table = dataclasses.replace(rentals, schema=schema, target=np.clip(rentals.target, low, high))
    cfg, parts = prepare(table, *LINEAR, LOG)
    bundle, _ = build(BuildSettings.from_config(cfg), table, parts, "none")
    predicted, lower, upper = bundle.predict_interval(table.matrix, 0.9)
    assert min(lower.min(), predicted.min()) == low and max(upper.max(), predicted.max()) == high


def test_cross_validation_scores_in_the_unit_of_the_target(lognormal: Table) -> None:
    cfg, parts = prepare(lognormal, *LINEAR, LOG, "evaluation=kfold")
    settings = CrossValidationSettings.from_config(cfg.evaluation)
    assert settings is not None
    scores = cross_validate(settings, FitSettings.from_config(cfg), RankingMetric(), lognormal, parts)
    valid = lognormal.take(parts.valid)
    model = fit(FitSettings.from_config(cfg), lognormal, parts.train, parts.valid)
    assert scores["r2"] == pytest.approx(score(model.predict(valid.matrix), valid.target, None)["r2"], abs=0.1)


@pytest.mark.long
def test_a_server_predicts_logarithms_as_the_bundle_bit_for_bit(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOUSING_HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    frame = rentals_frame()
    frame.to_csv(tmp_path / "data" / "rentals.csv", index=False)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    outcome = train(tmp_path, "target.transform=log", "figures=false", "model.estimator.n_estimators=50")
    store = tracking_store.connect(config("train", "data=rentals").mlflow)
    run = store.runs.get(str(outcome.run_id))
    assert run.tags[tags.TRANSFORM] == "log"
    repeated = reproduce(config("reproduce", f"run_id={outcome.run_id}"))
    assert all(comparison.is_equal for comparison in repeated)
    assert promote(config("promote", "data=rentals")).verdict == "PROMOTE"
    with store.artifacts.bundle(f"models:/{run.tags[tags.MODEL_ID]}") as folder:
        bundle = Bundle.read(folder)
    rows = bundle.schema.decode(bundle.schema.encode_frame(frame.head(100)))
    expected: dict[str, Vector] = dict(
        zip(("predictions", "lower", "upper"), bundle.predict_interval(bundle.schema.encode_records(rows), 0.9), strict=True)
    )
    with serving(tmp_path, "serve.workers=1") as server:
        wait_for(lambda: server.answers("/readyz"), "the model is published")
        assert [server.predict(row).json["predictions"][0] for row in rows[:5]] == expected["predictions"][:5].tolist()
        answer = server.ask("/predict?interval=0.9", json.dumps({"instances": rows}).encode()).json
        for name, values in expected.items():
            assert answer[name] == values.tolist(), name
        explained = server.ask("/explain", json.dumps(rows[0]).encode()).json
    assert explained["prediction"] == expected["predictions"][0]
    total = explained["base_value"] + sum(explained["contributions"].values())
    assert total == pytest.approx(explained["prediction"], rel=1e-6)
