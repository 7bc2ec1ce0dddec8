"""Models: their conversion is exact, their figures on the real table are the known ones."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig

from housing.core.errors import ConfigError, HousingError
from housing.data import table as data
from housing.data.split import Rows, Split, split
from housing.data.table import Table
from housing.training import fitting
from housing.training.build import build, build_bundle
from housing.training.estimators import Model
from housing.training.metrics import score
from tests.support.tables import SMALL, config


@pytest.mark.parametrize(
    ("model", "features", "rmse"),
    # ../docs/benchmarks.md has the figures; bounds leave room for another library version, not for a mistake
    [
        ("linear", "none", (0.715, 0.725)),
        ("linear", "static", (0.57, 0.60)),
        ("decision_tree", "none", (0.58, 0.62)),
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
    scored = score(bundle.predict(table.matrix[parts.test]), table.target[parts.test])
    assert rmse[0] < scored["rmse"] < rmse[1]
    assert metrics["latency_us"] > 0


MODELS = ["linear", "decision_tree", "xgboost"]
FAST = {"linear": (), "decision_tree": (), "xgboost": ("model.estimator.n_estimators=20", "model.estimator.learning_rate=0.2")}


@pytest.mark.parametrize("model", MODELS)
def test_the_bundle_predicts_what_the_estimator_predicts_on_rows_it_never_saw(rentals: Table, model: str) -> None:
    cfg = config("train", "data=rentals", "features=none", f"model={model}")
    parts = split(rentals, cfg.split)
    fitted = fitting.fit(cfg, rentals, parts.train)
    bundle = build_bundle(fitted, rentals, parts.train, parts.valid, parity_tolerance=1e-4)
    for rows in (parts.test, parts.valid, parts.train):
        np.testing.assert_allclose(bundle.predict(rentals.matrix[rows]), fitted.predict(rentals.matrix[rows]), rtol=1e-5)


def test_the_unit_of_a_column_makes_no_difference_to_the_linear_model(rentals: Table) -> None:
    cfg = config("train", "data=rentals", "features=none", "model=linear")
    parts, seconds = split(rentals, cfg.split), rentals.matrix.copy()
    seconds[:, 4] *= 3.2e7  # its years: beside them all other columns are small
    in_seconds = build(cfg, dataclasses.replace(rentals, matrix=seconds), parts, run_id="none")[1]
    assert in_seconds["rmse"] == pytest.approx(build(cfg, rentals, parts, run_id="none")[1]["rmse"])


def test_a_conversion_that_differs_is_refused_with_row_and_value(rentals: Table) -> None:
    cfg = config("train", "data=rentals", "features=none", "model=xgboost")
    parts = split(rentals, cfg.split)
    fitted = fitting.fit(cfg, rentals, parts.train)
    with pytest.raises(HousingError, match="the bundle differs from the fitted estimator by .* on validation row"):
        build_bundle(fitted, rentals, parts.train, parts.valid, parity_tolerance=0.0)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("features", ["static", "geo", "full"])
def test_a_table_without_coordinates_takes_any_features(rentals: Table, model: str, features: str) -> None:
    cfg = config("train", "data=rentals", f"features={features}", f"model={model}", *FAST[model])
    parts = split(rentals, cfg.split)
    bundle, metrics = build(cfg, rentals, parts, run_id="none")
    plain = config("train", "data=rentals", "features=none", f"model={model}", *FAST[model])
    assert metrics["rmse"] == pytest.approx(build(plain, rentals, parts, run_id="none")[1]["rmse"])
    assert np.isfinite(bundle.predict(rentals.matrix[parts.test])).all()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("features", ["geo", "full"])
def test_a_table_with_coordinates_missing_numbers_and_categories_takes_any_features(
    towns: Table, model: str, features: str
) -> None:
    given = ("data=towns", f"features={features}", *SMALL[features], f"model={model}", *FAST[model])
    parts = split(towns, config("train", *given).split)
    bundle, metrics = build(config("train", *given), towns, parts, run_id="none")
    far = towns.matrix[parts.test] + np.array([12.0, 12.0, 0, 0, 0, 0])
    assert np.isfinite(bundle.predict(np.vstack([towns.matrix[parts.test], far]))).all()
    assert metrics["rmse"] < 0.5 * towns.target.std()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("sklearn.tree.DecisionTreeClassifier", "DecisionTreeClassifier, which is not a regressor"),
        ("housing.core.files.sha256", "Error in call to target"),
        ("sklearn.nowhere.Nothing", "Error locating target"),
    ],
)
def test_an_estimator_that_cannot_be_used_is_refused(rentals: Table, target: str, message: str) -> None:
    another = ("~model.estimator.tol", f"model.estimator._target_={target}")
    cfg = config("train", "data=rentals", "features=none", "model=linear", *another)
    rounded = Table(rentals.schema, rentals.matrix, np.round(rentals.target, -3), rentals.key, rentals.fingerprint)
    with pytest.raises(ConfigError, match=message):
        build(cfg, rounded, split(rounded, cfg.split), run_id="none")


BOOSTED = ("data=rentals", "features=none", "model.estimator.n_estimators=400", "model.estimator.learning_rate=0.3")


def trees(fitted: Model) -> list[str]:
    """The trees of the only member, as text."""
    estimator: Any = fitted.ensemble.members[0].estimator
    return [str(tree) for tree in estimator.estimator.get_booster().get_dump()]


def test_early_stopping_ends_where_the_watched_rows_were_told_best(rentals: Table) -> None:
    cfg = config("train", *BOOSTED, "model.early_stopping=20")
    parts = split(rentals, cfg.split)
    model = fitting.fit(cfg, rentals, parts.train, parts.valid)
    rounds = model.best_rounds["xgboost"]
    assert 5 < rounds < 380 and len(model.best_rounds) == 1
    assert len(trees(model)) == rounds + 20  # those that made it no better are there, and do not count
    scores = {count: rmse_of(config("train", *BOOSTED), rentals, count) for count in (rounds - 20, rounds, rounds + 20)}
    assert scores[rounds] == min(scores.values())
    assert score(model.predict(rentals.matrix[parts.valid]), rentals.target[parts.valid])["rmse"] == scores[rounds]


def rmse_of(cfg: DictConfig, table: Table, rounds: int) -> float:
    """The error on validation rows with so many rounds."""
    parts = split(table, cfg.split)
    cfg.model.estimator.n_estimators = rounds
    return score(fitting.fit(cfg, table, parts.train).predict(table.matrix[parts.valid]), table.target[parts.valid])["rmse"]


def test_known_rounds_are_taken_and_nothing_is_watched(rentals: Table) -> None:
    cfg = config("train", *BOOSTED, "model.early_stopping=20")
    model = fitting.fit(cfg, rentals, np.arange(len(rentals)), rounds={"xgboost": 7})
    assert len(trees(model)) == 7
    plain = config("train", *BOOSTED, "model.estimator.n_estimators=7")
    assert trees(model) == trees(fitting.fit(plain, rentals, np.arange(len(rentals))))


def test_without_watched_rows_a_tenth_is_held_back(rentals: Table) -> None:
    cfg = config("train", *BOOSTED, "model.estimator.n_estimators=5", "model.early_stopping=5")
    rows = np.arange(100, 400)
    fitted = trees(fitting.fit(cfg, rentals, rows))

    def with_noise_in(noisy: Rows) -> list[str]:
        target = rentals.target.copy()
        target[noisy] += 5000.0
        return trees(fitting.fit(cfg, dataclasses.replace(rentals, target=target), rows))

    assert with_noise_in(rows[::10]) == fitted
    assert with_noise_in(rows[1:2]) != fitted


def test_members_stop_each_where_it_is_best(rentals: Table) -> None:
    members = "model.members.trees"
    given = (
        *("data=rentals", "features=none", "model=mean", f"{members}.n_seeds=2", f"{members}.model.early_stopping=10"),
        *(f"{members}.model.estimator.n_estimators=300", f"{members}.model.estimator.learning_rate=0.3"),
    )
    cfg = config("train", *given)
    parts = split(rentals, cfg.split)
    rounds = fitting.fit(cfg, rentals, parts.train, parts.valid).best_rounds
    assert set(rounds) == {"trees 0", "trees 1"} and len(set(rounds.values())) == 2
    again = fitting.fit(cfg, rentals, parts.train, rounds=rounds)
    counts = [len(member.estimator.estimator.get_booster().get_dump()) for member in again.ensemble.members]  # type: ignore[attr-defined]
    assert counts == list(rounds.values())


def test_an_estimator_without_rounds_cannot_be_stopped_early(rentals: Table) -> None:
    cfg = config("train", "data=rentals", "features=none", "model=linear", "+model.early_stopping=5")
    with pytest.raises(ConfigError, match="model.early_stopping is 5, and LinearRegression has no rounds; allowed: null"):
        fitting.fit(cfg, rentals, np.arange(100))


def test_rounds_are_told_while_they_go_on(rentals: Table) -> None:
    told: list[tuple[str, int, int, bool]] = []

    def hear(name: str, done: int, rounds: int, watched: float | None) -> None:
        told.append((name, done, rounds, watched is not None))

    cfg = config("train", "data=rentals", "features=none", "model.estimator.n_estimators=75")
    fitting.fit(cfg, rentals, np.arange(400), on_round=hear)
    assert told == [("xgboost", 25, 75, False), ("xgboost", 50, 75, False), ("xgboost", 75, 75, False)]
    told.clear()
    stopping = config("train", "data=rentals", "features=none", "model.estimator.n_estimators=30", "model.early_stopping=30")
    fitting.fit(stopping, rentals, np.arange(400), on_round=hear)
    assert told == [("xgboost", 25, 30, True)]


@pytest.mark.parametrize("model", [*MODELS, "mean"])
@pytest.mark.parametrize("features", ["none", "geo"])
def test_targets_that_are_all_equal_are_predicted(towns: Table, model: str, features: str) -> None:
    given = ("data=towns", f"features={features}", *SMALL[features], f"model={model}", *FAST.get(model, ()))
    cfg = config("train", *given)
    same = dataclasses.replace(towns, target=np.full(len(towns), 0.1))
    bundle, metrics = build(cfg, same, split(same, cfg.split), run_id="none")
    np.testing.assert_allclose(bundle.predict(towns.matrix), 0.1, rtol=1e-5)
    assert metrics["r2"] == 0.0 or metrics["rmse"] < 1e-6
    assert np.isfinite(bundle.predict_interval(towns.matrix, 0.9)).all()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("features", ["none", "full"])
def test_constant_columns_and_a_place_for_all_are_taken(towns: Table, model: str, features: str) -> None:
    matrix = np.tile(towns.matrix[:1], (len(towns), 1))
    matrix[:, 2] = towns.matrix[:, 2]  # but the area
    flat = dataclasses.replace(towns, matrix=matrix, target=2 * matrix[:, 2])
    cfg = config("train", "data=towns", f"features={features}", *SMALL[features], f"model={model}", *FAST[model], "split=random")
    bundle, metrics = build(cfg, flat, split(flat, cfg.split), run_id="none")
    assert metrics["r2"] > 0.4  # few trees, and most columns tell them nothing
    assert np.isfinite(bundle.predict(towns.matrix)).all()


def test_a_category_that_no_training_row_has_is_predicted(rentals: Table) -> None:
    for model in MODELS:
        cfg = config("train", "data=rentals", "features=none", f"model={model}", *FAST[model])
        parts = split(rentals, cfg.split)
        seen = parts.train[rentals.matrix[parts.train, 3] != 2]
        others = parts.valid[rentals.matrix[parts.valid, 3] != 2]
        bundle = build(cfg, rentals, Split(seen, others, parts.test), run_id="none")[0]
        assert np.isfinite(bundle.predict(rentals.matrix[rentals.matrix[:, 3] == 2])).all()


@pytest.mark.parametrize(
    ("features", "rows", "message"),
    [("geo", 90, "training rows are needed, and there are"), ("full", 90, "allowed: fewer neighbours or cells, more rows, or")],
)
def test_too_few_rows_for_the_features_are_refused(towns: Table, features: str, rows: int, message: str) -> None:
    cfg = config("train", "data=towns", f"features={features}", "interval=none")
    table = towns.head(rows)
    with pytest.raises(ConfigError, match=message):
        build(cfg, table, split(table, cfg.split), run_id="none")


def test_scores_are_what_their_names_say() -> None:
    scored = score(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0]))
    assert scored == pytest.approx({"rmse": np.sqrt(1 / 3), "mae": 1 / 3, "r2": 0.5})
    assert score(np.array([1.0, 1.0]), np.array([1.0, 1.0]))["r2"] == 0.0
