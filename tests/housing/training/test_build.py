"""Building a bundle: rows of the fit and of the scores, refit, background, reproducibility."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from housing.bundle.bundle import Bundle
from housing.bundle.onnx_model import OnnxModel
from housing.data.split import Rows, split
from housing.data.table import Table
from housing.fitting.fitting import FitSettings, fit
from housing.ingestion.drift import psi
from housing.schema.histogram import bin_counts
from housing.scoring.metrics import score
from housing.training.build import BuildSettings, build
from tests.support.tables import SMALL, config

EARLY_STOPPING = (
    *("data=rentals", "features=none", "model.estimator.n_estimators=400"),
    *("model.estimator.learning_rate=0.3", "model.early_stopping=20"),
)


def count_trees(bundle: Bundle) -> int:
    """Return the number of trees of the first member."""
    model = bundle.ensemble.members[0].estimator
    assert isinstance(model, OnnxModel)
    (node,) = [node for node in onnx.load_from_string(model.graph).graph.node if node.op_type.startswith("TreeEnsemble")]
    ids: Any = next(
        onnx.helper.get_attribute_value(attribute) for attribute in node.attribute if attribute.name == "nodes_treeids"
    )
    return len(set(ids))


def test_the_refit_uses_the_best_rounds_of_the_first_fit(rentals: Table) -> None:
    cfg = config("train", *EARLY_STOPPING)
    parts = split(rentals, cfg.split)
    first = fit(FitSettings.from_config(cfg), rentals, parts.train, parts.valid)
    bundle, metrics = build(BuildSettings.from_config(cfg), rentals, parts, run_id="none")
    assert count_trees(bundle) == first.best_rounds["xgboost"]
    assert metrics["rmse"] == score(first.predict(rentals.matrix[parts.valid]), rentals.target[parts.valid], None)["rmse"]
    assert metrics["refit_seconds"] > 0


def test_without_a_refit_the_bundle_is_the_model_that_was_scored(rentals: Table) -> None:
    cfg = config("train", *EARLY_STOPPING, "refit=false")
    parts = split(rentals, cfg.split)
    bundle, metrics = build(BuildSettings.from_config(cfg), rentals, parts, run_id="none")
    valid = rentals.matrix[parts.valid]
    assert score(bundle.predict(valid), rentals.target[parts.valid], None)["rmse"] == pytest.approx(metrics["rmse"], rel=1e-5)
    assert "refit_seconds" not in metrics
    assert bundle.card["fitted_on"] == "train"


def test_the_refit_learns_from_validation_rows_and_never_from_test_rows(rentals: Table) -> None:
    cfg = config("train", "data=rentals", "features=none", "model=linear", "interval=none")
    parts = split(rentals, cfg.split)

    def predictions(rows: Any, *, refit: bool) -> Any:
        target = rentals.target.copy()
        target[rows] += 1000.0
        changed = dataclasses.replace(rentals, target=target)
        cfg.refit = refit
        return build(BuildSettings.from_config(cfg), changed, parts, run_id="none")[0].predict(rentals.matrix)

    plain, refitted = predictions([], refit=False), predictions([], refit=True)
    assert not np.array_equal(plain, refitted)
    np.testing.assert_array_equal(predictions(parts.test, refit=False), plain)
    np.testing.assert_array_equal(predictions(parts.test, refit=True), refitted)
    np.testing.assert_array_equal(predictions(parts.valid, refit=False), plain)
    assert np.abs(predictions(parts.valid, refit=True) - refitted).max() > 100


def test_the_reference_histograms_come_from_the_rows_of_the_fit(rentals: Table) -> None:
    for refit in (True, False):
        cfg = config("train", "data=rentals", "features=none", "model=linear", f"refit={str(refit).lower()}")
        parts = split(rentals, cfg.split)
        bundle = build(BuildSettings.from_config(cfg), rentals, parts, run_id="none")[0]
        assert bundle.reference["rows"] == len(parts.train) + (len(parts.valid) if refit else 0)
        assert bundle.card["fitted_on"] == ("train and valid" if refit else "train")


def test_the_background_comes_from_the_rows_of_the_fit(rentals: Table) -> None:
    cfg = config("train", "data=rentals", "features=none", "model=linear", "refit=false", "interval=none", "n_background_rows=7")
    parts = split(rentals, cfg.split)
    bundle = build(BuildSettings.from_config(cfg), rentals, parts, run_id="none")[0]
    fit_rows = {row.tobytes() for row in rentals.matrix[parts.train]}
    assert len(bundle.background) == 7
    assert all(row.tobytes() in fit_rows for row in bundle.background)


def test_the_bundle_has_a_random_sample_of_the_rows_of_the_fit_unless_that_is_switched_off(rentals: Table) -> None:
    plain = ("data=rentals", "features=none", "model=linear", "refit=false", "interval=none")
    for count, expected in ((50, 50), (10**6, None), (0, 0)):
        cfg = config("train", *plain, f"n_sample_rows={count}")
        parts = split(rentals, cfg.split)
        sample = build(BuildSettings.from_config(cfg), rentals, parts, run_id="none")[0].sample
        fit_rows = sorted(row.tobytes() for row in rentals.matrix[parts.train])
        drawn = [] if sample is None else [row.tobytes() for row in sample]
        assert len(drawn) == (len(fit_rows) if expected is None else expected)
        assert set(drawn) <= set(fit_rows)
        assert expected is not None or sorted(drawn) == fit_rows


def test_contributions_are_largest_for_the_column_that_decides_and_0_for_an_ignored_one(rentals: Table) -> None:
    area = [column.name for column in rentals.schema.features].index("area")
    target = dataclasses.replace(rentals, target=10.0 + 5.0 * rentals.matrix[:, area])
    cfg = config("train", "data=rentals", "features=none", "model=linear", "interval=none", "evaluation=holdout")
    bundle = build(BuildSettings.from_config(cfg), target, split(target, cfg.split), run_id="none")[0]
    contributions = bundle.reference["contributions"]
    assert list(contributions) == [column.name for column in rentals.schema.features]
    expected = 5.0 * np.abs(rentals.matrix[:, area] - rentals.matrix[:, area].mean()).mean()
    assert contributions["area"] == pytest.approx(expected, rel=0.4)  # of some random rows and background rows
    assert max(value for name, value in contributions.items() if name != "area") < 0.01 * contributions["area"]


@pytest.mark.parametrize("name", ["geo", "full"])
def test_a_bundle_with_fitted_features_predicts_the_same_after_reading(towns: Table, tmp_path: Path, name: str) -> None:
    overrides = ("data=towns", f"features={name}", *SMALL[name], "model.estimator.n_estimators=15")
    bundle = build(
        BuildSettings.from_config(config("train", *overrides)),
        towns,
        split(towns, config("train", *overrides).split),
        run_id="none",
    )[0]
    bundle.write(tmp_path / "bundle")
    restored = Bundle.read(tmp_path / "bundle")
    np.testing.assert_array_equal(restored.predict(towns.matrix), bundle.predict(towns.matrix))
    one_by_one = [restored.predict(row[None])[0] for row in towns.matrix[:40]]
    np.testing.assert_allclose(one_by_one, bundle.predict(towns.matrix[:40]), rtol=1e-6)


def test_a_blend_predicts_the_same_near_and_far_after_reading(towns: Table, tmp_path: Path) -> None:
    few_trees = tuple(f"model.members.{name}.model.estimator.n_estimators=10" for name in ("near", "far"))
    cfg = config("train", "data=towns", "model=blend", "features=geo", *SMALL["geo"], *few_trees)
    bundle = build(BuildSettings.from_config(cfg), towns, split(towns, cfg.split), run_id="none")[0]
    bundle.write(tmp_path / "bundle")
    near_and_far = np.vstack([towns.matrix + np.array([degrees, degrees, 0, 0, 0, 0]) for degrees in (0.0, 0.1, 0.3, 9.0)])
    np.testing.assert_array_equal(Bundle.read(tmp_path / "bundle").predict(near_and_far), bundle.predict(near_and_far))
    assert len(bundle.ensemble.features) == 2 and bundle.ensemble.applicability is not None


def test_a_build_is_reproducible_to_the_last_digit(towns: Table) -> None:
    cfg = config("train", "data=towns", "features=full", *SMALL["full"], "model.estimator.n_estimators=10", "n_threads=1")
    parts = split(towns, cfg.split)
    first, second = (build(BuildSettings.from_config(cfg), towns, parts, run_id="none") for _ in range(2))
    np.testing.assert_array_equal(first[0].predict(towns.matrix), second[0].predict(towns.matrix))
    assert first[1]["rmse"] == second[1]["rmse"]


def test_predictions_of_new_rows_do_not_drift_from_the_reference_of_an_overfitting_model(rentals: Table) -> None:
    noise = np.random.default_rng(0).normal(1000, 100, len(rentals))
    table = dataclasses.replace(rentals, target=noise)
    forest = ("model=extra_trees", "model.estimator.n_estimators=50", "model.estimator.min_samples_leaf=1")
    cfg = config("train", "data=rentals", "features=none", "interval=none", *forest)
    parts = split(table, cfg.split)
    bundle, _ = build(BuildSettings.from_config(cfg), table, parts, "none")

    def measure_psi(rows: Rows) -> float:
        reference = bundle.reference["prediction"]
        counts = bin_counts(bundle.predict(table.matrix[rows]), np.array(reference["edges"]))
        return psi(len(parts.valid) * np.array(reference["shares"]), counts.astype(float))

    shares, random = np.array(bundle.reference["prediction"]["shares"]), np.random.default_rng(0)
    samples = ([random.multinomial(len(rows), shares).astype(float) for rows in (parts.valid, parts.test)] for _ in range(1000))
    limit = np.quantile([psi(*pair) for pair in samples], 0.99)  # of rows of the same distribution
    test_psi, train_psi = measure_psi(parts.test), measure_psi(parts.train)
    assert test_psi < limit < train_psi, (test_psi, limit, train_psi)
