"""Models: their conversion is exact, their figures on the real table are the known ones."""

from pathlib import Path

import numpy as np
import pytest

from conftest import config
from housing import data, models
from housing.data import Table
from housing.errors import ConfigError, HousingError
from housing.run import build
from housing.split import split


@pytest.mark.parametrize(
    ("model", "features", "rmse"),
    # ../docs/benchmarks.md has the figures; bounds leave room for another library version, not for a mistake
    [
        ("linear", "none", (0.715, 0.725)),
        ("linear", "static", (0.57, 0.60)),
        ("decision_tree", "none", (0.60, 0.65)),
        ("decision_tree", "static", (0.52, 0.57)),
        ("xgboost", "none", (0.43, 0.46)),
        ("xgboost", "static", (0.39, 0.41)),
    ],
)
def test_the_test_rmse_on_the_real_table_is_the_known_one(
    real_home: Path, monkeypatch: pytest.MonkeyPatch, model: str, features: str, rmse: tuple[float, float]
) -> None:
    monkeypatch.setenv("HOUSING_HOME", str(real_home))
    cfg = config("train", f"model={model}", f"features={features}", "split=random", "split.seeds=[42,42]")
    table = data.load(cfg.data)
    parts = split(table, cfg.split)
    bundle, metrics = build(cfg, table, parts, run_id="none")
    scored = models.score(bundle.predict(table.matrix[parts.test]), table.target[parts.test])
    assert rmse[0] < scored["rmse"] < rmse[1]
    assert metrics["row_microseconds"] > 0


@pytest.mark.parametrize("model", ["linear", "decision_tree", "xgboost"])
def test_the_bundle_predicts_what_the_estimator_predicts_on_rows_it_never_saw(rentals: Table, model: str) -> None:
    cfg = config("train", "data=rentals", "features=none", f"model={model}")
    parts = split(rentals, cfg.split)
    fitted = models.fit(cfg, rentals, parts.train)
    bundle = models.to_bundle(fitted, rentals, parts, parity=1e-4, golden_rows=8)
    for rows in (parts.test, parts.valid, parts.train):
        expected = fitted.estimator.predict(fitted.features.transform(rentals.matrix[rows]))
        np.testing.assert_allclose(bundle.members[0].predict(rentals.matrix[rows]), expected, rtol=1e-5)


def test_a_conversion_that_differs_is_refused_with_row_and_value(rentals: Table) -> None:
    cfg = config("train", "data=rentals", "features=none", "model=xgboost")
    parts = split(rentals, cfg.split)
    fitted = models.fit(cfg, rentals, parts.train)
    with pytest.raises(HousingError, match="the bundle differs from the fitted estimator by .* on validation row"):
        models.to_bundle(fitted, rentals, parts, parity=0.0, golden_rows=8)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("sklearn.tree.DecisionTreeClassifier", "DecisionTreeClassifier, which is not a regressor"),
        ("housing.files.sha256", "Error in call to target"),
        ("sklearn.nowhere.Nothing", "Error locating target"),
    ],
)
def test_an_estimator_that_cannot_be_used_is_refused(rentals: Table, target: str, message: str) -> None:
    cfg = config("train", "data=rentals", "features=none", "model=linear", f"model.estimator._target_={target}")
    rounded = Table(rentals.schema, rentals.matrix, np.round(rentals.target, -3), rentals.key, rentals.fingerprint)
    with pytest.raises(ConfigError, match=message):
        build(cfg, rounded, split(rounded, cfg.split), run_id="none")


def test_scores_are_what_their_names_say() -> None:
    scored = models.score(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0]))
    assert scored == pytest.approx({"rmse": np.sqrt(1 / 3), "mae": 1 / 3, "r2": 0.5})
    assert models.score(np.array([1.0, 1.0]), np.array([1.0, 1.0]))["r2"] == 0.0
