"""Fitting: known scores on the California table, exact export, early stopping, and tables that are hard to fit."""

import dataclasses
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf
from sklearn.tree import DecisionTreeRegressor

from housing.core.errors import ConfigError, HousingError, TrialPruned
from housing.data.split import Rows, Split, split
from housing.data.table import Table, load
from housing.estimators.specs import EstimatorSpec
from housing.fitting.estimators import Model, fit_features
from housing.fitting.fitting import FitSettings, fit
from housing.scoring.metrics import score
from housing.training.build import BuildSettings, build, build_bundle
from tests.support.tables import NO_BLOCKS, SMALL, config, require_library


@pytest.mark.parametrize(
    ("model", "features", "rmse"),
    # Scores of docs/explanation/benchmarks.md. The bounds allow for other library versions, not for a mistake.
    [
        ("linear", "none", (0.715, 0.725)),
        ("linear", "static", (0.57, 0.60)),
        ("decision_tree", "none", (0.58, 0.62)),
        ("decision_tree", "static", (0.52, 0.57)),
        ("xgboost", "none", (0.43, 0.46)),
        pytest.param("xgboost", "static", (0.39, 0.41), marks=pytest.mark.long),
    ],
)
def test_the_test_rmse_on_the_california_table_is_the_documented_one(
    real_home: Path, monkeypatch: pytest.MonkeyPatch, model: str, features: str, rmse: tuple[float, float]
) -> None:
    monkeypatch.setenv("HOUSING_HOME", str(real_home))
    cfg = config("train", f"model={model}", f"features={features}", "split=random", "split.seeds=[42,42]")
    table = load(cfg.data)
    parts = split(table, cfg.split)
    bundle, metrics = build(BuildSettings.from_config(cfg), table, parts, run_id="none")
    scores = score(bundle.predict(table.matrix[parts.test]), table.target[parts.test], None)
    assert rmse[0] < scores["rmse"] < rmse[1]
    assert metrics["latency_us"] > 0


MODELS = ["linear", "decision_tree", "xgboost"]
BOOSTERS = {"catboost": "iterations", "lightgbm": "n_estimators", "hist_gradient_boosting": "max_iter"}
FAST = {"linear": (), "decision_tree": (), "xgboost": ("model.estimator.n_estimators=20", "model.estimator.learning_rate=0.2")}


@pytest.mark.parametrize("model", [*MODELS, *BOOSTERS, "ridge", "knn", "svr", "neural"])
def test_the_exported_model_predicts_like_the_estimator_on_all_rows(rentals: Table, model: str) -> None:
    require_library(model)
    cfg = config("train", "data=rentals", "features=none", f"model={model}")
    parts = split(rentals, cfg.split)
    fitted = fit(FitSettings.from_config(cfg), rentals, parts.train)
    bundle = build_bundle(fitted, rentals, parts.train, parts.valid, parity_tolerance=1e-4)
    for rows in (parts.test, parts.valid, parts.train):
        np.testing.assert_allclose(bundle.predict(rentals.matrix[rows]), fitted.predict(rentals.matrix[rows]), rtol=1e-5)


def test_the_linear_model_does_not_depend_on_the_unit_of_a_column(rentals: Table) -> None:
    cfg = config("train", "data=rentals", "features=none", "model=linear")
    parts, seconds = split(rentals, cfg.split), rentals.matrix.copy()
    seconds[:, 4] *= 3.2e7  # years in seconds: all other columns are small in comparison
    in_seconds = build(BuildSettings.from_config(cfg), dataclasses.replace(rentals, matrix=seconds), parts, run_id="none")[1]
    assert in_seconds["rmse"] == pytest.approx(build(BuildSettings.from_config(cfg), rentals, parts, run_id="none")[1]["rmse"])


def test_an_export_that_differs_is_refused_with_row_and_value(rentals: Table) -> None:
    cfg = config("train", "data=rentals", "features=none", "model=xgboost")
    parts = split(rentals, cfg.split)
    fitted = fit(FitSettings.from_config(cfg), rentals, parts.train)
    with pytest.raises(HousingError, match="exported model differs from the fitted estimator by .* on validation row"):
        build_bundle(fitted, rentals, parts.train, parts.valid, parity_tolerance=0.0)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("features", ["static", "geo", "full"])
def test_all_features_work_without_coordinates(rentals: Table, model: str, features: str) -> None:
    cfg = config("train", "data=rentals", f"features={features}", f"model={model}", *FAST[model])
    parts = split(rentals, cfg.split)
    bundle, metrics = build(BuildSettings.from_config(cfg), rentals, parts, run_id="none")
    plain = config("train", "data=rentals", "features=none", f"model={model}", *FAST[model])
    assert metrics["rmse"] == pytest.approx(build(BuildSettings.from_config(plain), rentals, parts, run_id="none")[1]["rmse"])
    assert np.isfinite(bundle.predict(rentals.matrix[parts.test])).all()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("features", ["geo", "full"])
def test_all_features_work_with_coordinates_missing_numbers_and_categories(towns: Table, model: str, features: str) -> None:
    overrides = ("data=towns", f"features={features}", *SMALL[features], f"model={model}", *FAST[model])
    parts = split(towns, config("train", *overrides).split)
    bundle, metrics = build(BuildSettings.from_config(config("train", *overrides)), towns, parts, run_id="none")
    far = towns.matrix[parts.test] + np.array([12.0, 12.0, 0, 0, 0, 0])
    assert np.isfinite(bundle.predict(np.vstack([towns.matrix[parts.test], far]))).all()
    assert metrics["rmse"] < 0.5 * towns.target.std()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("sklearn.tree.DecisionTreeClassifier", "must be a regressor .got DecisionTreeClassifier"),
        ("housing.core.files.sha256", "Error in call to target"),
        ("sklearn.nowhere.Nothing", "Error locating target"),
        (
            "sklearn.gaussian_process.GaussianProcessRegressor",
            "GaussianProcessRegressor cannot be served. The ONNX graph has the operator '.*' of 'ai.onnx'; allowed",
        ),
        ("sklearn.dummy.DummyRegressor", "DummyRegressor cannot be exported to ONNX: Unable to find a shape calculator"),
    ],
)
def test_an_unusable_estimator_is_refused(rentals: Table, target: str, message: str) -> None:
    estimator = ("~model.estimator.tol", f"model.estimator._target_={target}")
    cfg = config("train", "data=rentals", "features=none", "model=linear", *estimator)
    rounded = Table(rentals.schema, rentals.matrix, np.round(rentals.target, -3), rentals.keys, rentals.fingerprint)
    with pytest.raises(ConfigError, match=message):
        build(BuildSettings.from_config(cfg), rounded, split(rounded, cfg.split), run_id="none")


BOOSTED = ("data=rentals", "features=none", "model.estimator.n_estimators=400", "model.estimator.learning_rate=0.3")


def trees(fitted: Model) -> list[str]:
    """Return the trees of the only member, as text."""
    estimator: Any = fitted.ensemble.members[0].estimator
    return [str(tree) for tree in estimator.estimator.get_booster().get_dump()]


def test_early_stopping_chooses_the_rounds_with_the_best_validation_score(rentals: Table) -> None:
    cfg = config("train", *BOOSTED, "model.early_stopping=20")
    parts = split(rentals, cfg.split)
    model = fit(FitSettings.from_config(cfg), rentals, parts.train, parts.valid)
    rounds = model.best_rounds["xgboost"]
    assert 5 < rounds < 380 and len(model.best_rounds) == 1
    assert len(trees(model)) == rounds + 20  # the last 20 did not improve the score and are not used
    scores = {count: rmse_of(config("train", *BOOSTED), rentals, count) for count in (rounds - 20, rounds, rounds + 20)}
    assert scores[rounds] == min(scores.values())
    assert score(model.predict(rentals.matrix[parts.valid]), rentals.target[parts.valid], None)["rmse"] == scores[rounds]


def rmse_of(cfg: DictConfig, table: Table, rounds: int) -> float:
    """Return the validation error of a fit with a fixed number of rounds."""
    parts = split(table, cfg.split)
    cfg.model.estimator.n_estimators = rounds
    return score(
        fit(FitSettings.from_config(cfg), table, parts.train).predict(table.matrix[parts.valid]), table.target[parts.valid], None
    )["rmse"]


def test_given_rounds_disable_early_stopping(rentals: Table) -> None:
    cfg = config("train", *BOOSTED, "model.early_stopping=20")
    first = dataclasses.replace(fit(FitSettings.from_config(cfg), rentals, np.arange(100)), best_rounds={"xgboost": 7})
    model = fit(FitSettings.from_config(cfg), rentals, np.arange(len(rentals)), first=first)
    assert len(trees(model)) == 7
    plain = config("train", *BOOSTED, "model.estimator.n_estimators=7")
    assert trees(model) == trees(fit(FitSettings.from_config(plain), rentals, np.arange(len(rentals))))


def test_without_validation_rows_every_tenth_row_is_held_out(rentals: Table) -> None:
    cfg = config("train", *BOOSTED, "model.estimator.n_estimators=5", "model.early_stopping=5")
    rows = np.arange(100, 400)
    fitted = trees(fit(FitSettings.from_config(cfg), rentals, rows))

    def trees_with_noise_in(noisy: Rows) -> list[str]:
        target = rentals.target.copy()
        target[noisy] += 5000.0
        return trees(fit(FitSettings.from_config(cfg), dataclasses.replace(rentals, target=target), rows))

    assert trees_with_noise_in(rows[::10]) == fitted
    assert trees_with_noise_in(rows[1:2]) != fitted


def boosted_config(model: str, rounds: int, *overrides: str) -> DictConfig:
    """Return the config of a boosting library on rentals, which have missing numbers."""
    require_library(model)
    rounds_override = f"model.estimator.{BOOSTERS[model]}={rounds}"
    base = (
        "data=rentals",
        "features=none",
        f"model={model}",
        rounds_override,
        "model.estimator.learning_rate=0.3",
        "n_threads=1",
    )
    return config("train", *base, *overrides)


@pytest.mark.parametrize("model", BOOSTERS)
def test_every_boosting_library_stops_at_its_best_round(rentals: Table, model: str) -> None:
    cfg = boosted_config(model, 300, "model.early_stopping=15")
    parts = split(rentals, cfg.split)
    stopped = fit(FitSettings.from_config(cfg), rentals, parts.train, parts.valid)
    rounds = stopped.best_rounds[model]
    assert 3 < rounds < 280
    given = fit(FitSettings.from_config(cfg), rentals, parts.train, first=stopped)
    plain = fit(FitSettings.from_config(boosted_config(model, rounds)), rentals, parts.train)
    valid = rentals.matrix[parts.valid]
    np.testing.assert_array_equal(given.predict(valid), plain.predict(valid))
    np.testing.assert_allclose(stopped.predict(valid), plain.predict(valid), rtol=1e-9)
    assert given.best_rounds[model] == rounds


@pytest.mark.parametrize("model", BOOSTERS)
def test_boosting_libraries_predict_missing_numbers_like_their_exports(rentals: Table, model: str) -> None:
    cfg = boosted_config(model, 30)
    random = np.random.default_rng(0)
    matrix = rentals.matrix.copy()
    matrix[:, :3][random.random((len(rentals), 3)) < 0.3] = np.nan
    sparse = dataclasses.replace(rentals, matrix=matrix)
    fitted = fit(FitSettings.from_config(cfg), sparse, np.arange(400))
    bundle = build_bundle(fitted, sparse, np.arange(400), np.arange(len(sparse)), parity_tolerance=1e-5)
    assert all(member.estimator.uses_tree_walker for member in bundle.ensemble.members)  # type: ignore[attr-defined]
    dense = fit(FitSettings.from_config(cfg), dataclasses.replace(rentals, matrix=np.nan_to_num(matrix)), np.arange(400))
    build_bundle(dense, sparse, np.arange(400), np.arange(len(sparse)), parity_tolerance=1e-5)  # NaN first seen in prediction


@pytest.mark.parametrize("model", ["catboost", "lightgbm"])
def test_rounds_of_other_libraries_are_reported(rentals: Table, model: str) -> None:
    reported: list[tuple[str, int, int, bool]] = []

    def report(name: str, done: int, rounds: int, validation_score: float | None) -> None:
        reported.append((name, done, rounds, validation_score is not None))

    fit(FitSettings.from_config(boosted_config(model, 50)), rentals, np.arange(400), on_round=report)
    assert reported == [(model, 25, 50, False), (model, 50, 50, False)]


@pytest.mark.parametrize("model", ["lightgbm", "catboost"])
def test_an_exception_of_the_callback_ends_the_fit(rentals: Table, model: str) -> None:
    require_library(model)
    rounds: list[int] = []

    def stop(_: str, done: int, __: int, ___: float | None) -> None:
        rounds.append(done)
        raise TrialPruned("enough")

    with pytest.raises(TrialPruned, match="^enough$"):
        fit(FitSettings.from_config(boosted_config(model, 500)), rentals, np.arange(400), on_round=stop)
    assert rounds == [25]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("+model.estimator.max_dept=3",),
            "model.estimator.max_dept: XGBRegressor has no argument max_dept. Did you mean max_depth?",
        ),
        (("model=decision_tree", "+model.estimator.min_leaf=3"), "DecisionTreeRegressor has no argument min_leaf. Did you mean"),
        (("model=decision_tree", "+model.estimator.zzz=3"), "has no argument zzz. Arguments: criterion, splitter"),
        (("model=decision_tree", "model.estimator.min_samples_leaf=-3"), "model.estimator: The 'min_samples_leaf' parameter"),
        (("model=ridge", "model.estimator.ridge.alpha=-3"), "model.estimator.ridge: The 'alpha' parameter of Ridge"),
        (("model=mean", "+model.members.trees.model.estimator.max_dept=3"), "model.members.trees.model.estimator.max_dept: "),
        (("model.estimator._target_=notthere.Model",), "needs the package notthere. Install it: pip install notthere"),
        (("+interval.estimator.max_dept=3",), "interval.estimator.max_dept: "),
    ],
)
def test_arguments_are_checked_before_anything_is_fitted(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        BuildSettings.from_config(config("train", "data=rentals", "features=none", *overrides))


@pytest.mark.parametrize("model", ["catboost", "lightgbm"])
def test_a_missing_library_is_named_with_its_extra(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("housing.estimators.arguments.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"needs the package {model}. Install it: pip install 'housing\[boosters\]'"):
        FitSettings.from_config(config("train", "data=rentals", f"model={model}"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model=svr", "model.estimator.svr.kernel=poly"), "kernel of SVR must be rbf or linear (got 'poly')"),
        (("model=knn", "+model.estimator.knn.p=1"), "metric of KNeighborsRegressor must be euclidean"),
        (("model=hist_gradient_boosting", "+model.estimator.loss=poisson"), "model.estimator.loss must be squared_error"),
        (("model=lightgbm", "+model.estimator.objective=poisson"), "model.estimator.objective must be regression"),
    ],
)
def test_a_model_that_no_graph_can_represent_is_refused(rentals: Table, overrides: tuple[str, ...], message: str) -> None:
    require_library(overrides[0].removeprefix("model="))
    cfg = config("train", "data=rentals", "features=none", *overrides)
    fitted = fit(FitSettings.from_config(cfg), rentals, np.arange(200))
    with pytest.raises(ConfigError, match=re.escape(message)):
        build_bundle(fitted, rentals, np.arange(200), np.arange(200), parity_tolerance=1e-4)


@pytest.mark.filterwarnings("ignore:.*Maximum iterations:sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "regressor",
    [
        "{_target_: sklearn.neural_network.MLPRegressor, hidden_layer_sizes: [9], max_iter: 20}",
        "{_target_: sklearn.cross_decomposition.PLSRegression}",
        "{_target_: sklearn.linear_model.PoissonRegressor}",
        "{_target_: sklearn.svm.NuSVR}",
    ],
)
def test_a_pipeline_of_scikit_learn_needs_only_a_config(rentals: Table, regressor: str) -> None:
    cfg = config("train", "data=rentals", "features=none", "model=ridge", "interval=none")
    cfg.model.estimator = OmegaConf.create(f"""
      _target_: housing.estimators.pipelines.pipeline
      scale: {{_target_: sklearn.preprocessing.StandardScaler}}
      components: {{_target_: sklearn.decomposition.PCA, n_components: 4}}
      regressor: {regressor}
    """)
    bundle, _ = build(BuildSettings.from_config(cfg), rentals, split(rentals, cfg.split), run_id="none")
    assert np.isfinite(bundle.predict(rentals.matrix)).all()


def test_each_member_stops_at_its_own_best_round(rentals: Table) -> None:
    members = "model.members.trees"
    overrides = (
        *("data=rentals", "features=none", "model=mean", f"{members}.n_seeds=2", f"{members}.model.early_stopping=10"),
        *(f"{members}.model.estimator.n_estimators=300", f"{members}.model.estimator.learning_rate=0.3"),
    )
    cfg = config("train", *overrides)
    parts = split(rentals, cfg.split)
    first = fit(FitSettings.from_config(cfg), rentals, parts.train, parts.valid)
    rounds = first.best_rounds
    assert set(rounds) == {"trees 0", "trees 1"} and len(set(rounds.values())) == 2
    refitted = fit(FitSettings.from_config(cfg), rentals, parts.train, first=first)
    counts = [len(member.estimator.estimator.get_booster().get_dump()) for member in refitted.ensemble.members]  # type: ignore[attr-defined]
    assert counts == list(rounds.values())


def test_early_stopping_needs_an_estimator_with_rounds(rentals: Table) -> None:
    cfg = config("train", "data=rentals", "features=none", "model=linear", "+model.early_stopping=5")
    with pytest.raises(ConfigError, match="model.early_stopping must be null .got 5.: LinearRegression"):
        fit(FitSettings.from_config(cfg), rentals, np.arange(100))


def test_rounds_are_reported_during_the_fit(rentals: Table) -> None:
    reported: list[tuple[str, int, int, bool]] = []

    def report(name: str, finished_rounds: int, rounds: int, validation_score: float | None) -> None:
        reported.append((name, finished_rounds, rounds, validation_score is not None))

    cfg = config("train", "data=rentals", "features=none", "model.estimator.n_estimators=75")
    fit(FitSettings.from_config(cfg), rentals, np.arange(400), on_round=report)
    assert reported == [("xgboost", 25, 75, False), ("xgboost", 50, 75, False), ("xgboost", 75, 75, False)]
    reported.clear()
    stopping = config("train", "data=rentals", "features=none", "model.estimator.n_estimators=30", "model.early_stopping=30")
    fit(FitSettings.from_config(stopping), rentals, np.arange(400), on_round=report)
    assert reported == [("xgboost", 25, 30, True)]


@pytest.mark.parametrize("model", [*MODELS, "mean"])
@pytest.mark.parametrize("features", ["none", "geo"])
def test_a_constant_target_is_predicted(towns: Table, model: str, features: str) -> None:
    overrides = ("data=towns", f"features={features}", *SMALL[features], f"model={model}", *FAST.get(model, ()))
    cfg = config("train", *overrides)
    constant = dataclasses.replace(towns, target=np.full(len(towns), 0.1))
    bundle, metrics = build(BuildSettings.from_config(cfg), constant, split(constant, cfg.split), run_id="none")
    np.testing.assert_allclose(bundle.predict(towns.matrix), 0.1, rtol=1e-5)
    assert metrics["r2"] == 0.0 or metrics["rmse"] < 1e-6
    assert np.isfinite(bundle.predict_interval(towns.matrix, 0.9)).all()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("features", ["none", "full"])
def test_constant_columns_and_a_single_location_can_be_fitted(towns: Table, model: str, features: str) -> None:
    matrix = np.tile(towns.matrix[:1], (len(towns), 1))
    matrix[:, 2] = towns.matrix[:, 2]  # only the area varies
    flat = dataclasses.replace(towns, matrix=matrix, target=2 * matrix[:, 2])
    cfg = config("train", "data=towns", f"features={features}", *SMALL[features], f"model={model}", *FAST[model], "split=random")
    bundle, metrics = build(BuildSettings.from_config(cfg), flat, split(flat, cfg.split), run_id="none")
    assert metrics["r2"] > 0.4  # few trees, and most columns carry no information
    assert np.isfinite(bundle.predict(towns.matrix)).all()


def test_a_category_without_training_rows_can_be_predicted(rentals: Table) -> None:
    for model in MODELS:
        cfg = config("train", "data=rentals", "features=none", f"model={model}", *FAST[model])
        parts = split(rentals, cfg.split)
        train = parts.train[rentals.matrix[parts.train, 3] != 2]
        valid = parts.valid[rentals.matrix[parts.valid, 3] != 2]
        bundle = build(BuildSettings.from_config(cfg), rentals, Split(train, valid, parts.test), run_id="none")[0]
        assert np.isfinite(bundle.predict(rentals.matrix[rentals.matrix[:, 3] == 2])).all()


@pytest.mark.parametrize(
    ("features", "rows", "message"),
    [("geo", 90, "The features need at least .* training rows"), ("full", 90, "fewer neighbours or clusters")],
)
def test_features_refuse_too_few_rows(towns: Table, features: str, rows: int, message: str) -> None:
    cfg = config("train", "data=towns", f"features={features}", "interval=none")
    table = towns.head(rows)
    with pytest.raises(ConfigError, match=message):
        build(BuildSettings.from_config(cfg), table, split(table, cfg.split), run_id="none")


def test_a_fit_needs_no_config(rentals: Table) -> None:
    settings = FitSettings(
        (EstimatorSpec("tree", partial(DecisionTreeRegressor, max_depth=6), NO_BLOCKS, nan_handling="impute"),)
    )
    model = fit(settings, rentals, np.arange(400))
    scores = score(model.predict(rentals.matrix[400:]), rentals.target[400:], None)
    assert not settings.uses_early_stopping and model.best_rounds == {}
    assert scores["r2"] > 0.9


def test_scores_follow_their_definitions() -> None:
    scores = score(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0]), None)
    assert scores == pytest.approx({"rmse": np.sqrt(1 / 3), "mae": 1 / 3, "r2": 0.5})
    assert score(np.array([1.0, 1.0]), np.array([1.0, 1.0]), None)["r2"] == 0.0


def test_columns_that_only_boosted_trees_receive_are_rounded_once(towns: Table) -> None:
    cfg = config("train", "data=towns", "features=geo", *SMALL["geo"])
    rows, boosted = np.arange(300), FitSettings.from_config(cfg).specs
    shared = (*boosted, dataclasses.replace(boosted[0], create_estimator=DecisionTreeRegressor))
    fitted, exact = (fit_features(specs, 0, towns, rows, np.arange(300, 400)) for specs in (boosted, shared))
    assert [columns.columns.dtype.name for columns in (fitted, exact)] == ["float32", "float64"]
    np.testing.assert_array_equal(fitted.columns, exact.columns.astype(np.float32))
    assert fitted.validation is not None and exact.validation is not None
    np.testing.assert_array_equal(fitted.validation[0], exact.validation[0].astype(np.float32))
    rows_twice = fitted.training_rows(boosted[0].create_estimator()).with_copies()
    assert fitted.features.applicability is not None and len(rows_twice.columns) == len(rows_twice.target) == 600
    np.testing.assert_array_equal(rows_twice.columns[:300], fitted.columns)
    np.testing.assert_array_equal(rows_twice.columns[300:], fitted.features.mask_local(fitted.columns))
