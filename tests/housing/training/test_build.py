"""A run without its tracking: what it is fitted on, what it is scored on, what its bundle holds."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from housing.bundle.bundle import Bundle
from housing.bundle.onnx_model import OnnxModel
from housing.data.split import split
from housing.data.table import Table
from housing.training import fitting
from housing.training.build import build
from housing.training.metrics import score
from tests.support.tables import SMALL, config

STOPPED = (
    *("data=rentals", "features=none", "model.estimator.n_estimators=400"),
    *("model.estimator.learning_rate=0.3", "model.early_stopping=20"),
)


def trees(bundle: Bundle) -> int:
    """How many trees the first member has."""
    graph = bundle.ensemble.members[0].estimator
    assert isinstance(graph, OnnxModel)
    (node,) = [node for node in onnx.load_from_string(graph.graph).graph.node if node.op_type.startswith("TreeEnsemble")]
    ids: Any = next(onnx.helper.get_attribute_value(each) for each in node.attribute if each.name == "nodes_treeids")
    return len(set(ids))


def test_the_refit_takes_the_rounds_that_were_best_on_validation_rows(rentals: Table) -> None:
    cfg = config("train", *STOPPED)
    parts = split(rentals, cfg.split)
    first = fitting.fit(cfg, rentals, parts.train, parts.valid)
    bundle, metrics = build(cfg, rentals, parts, run_id="none")
    assert trees(bundle) == first.best_rounds["xgboost"]
    assert metrics["rmse"] == score(first.predict(rentals.matrix[parts.valid]), rentals.target[parts.valid])["rmse"]
    assert metrics["refit_seconds"] > 0


def test_without_a_refit_the_bundle_is_the_model_that_was_scored(rentals: Table) -> None:
    cfg = config("train", *STOPPED, "refit=false")
    parts = split(rentals, cfg.split)
    bundle, metrics = build(cfg, rentals, parts, run_id="none")
    valid = rentals.matrix[parts.valid]
    assert score(bundle.predict(valid), rentals.target[parts.valid])["rmse"] == pytest.approx(metrics["rmse"], rel=1e-5)
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
        return build(cfg, changed, parts, run_id="none")[0].predict(rentals.matrix)

    plain, refitted = predictions([], refit=False), predictions([], refit=True)
    assert not np.array_equal(plain, refitted)
    np.testing.assert_array_equal(predictions(parts.test, refit=False), plain)
    np.testing.assert_array_equal(predictions(parts.test, refit=True), refitted)
    np.testing.assert_array_equal(predictions(parts.valid, refit=False), plain)
    assert np.abs(predictions(parts.valid, refit=True) - refitted).max() > 100


def test_the_reference_is_of_the_rows_that_the_bundle_was_fitted_on(rentals: Table) -> None:
    for refit in (True, False):
        cfg = config("train", "data=rentals", "features=none", "model=linear", f"refit={str(refit).lower()}")
        parts = split(rentals, cfg.split)
        bundle = build(cfg, rentals, parts, run_id="none")[0]
        assert bundle.reference["rows"] == len(parts.train) + (len(parts.valid) if refit else 0)
        assert bundle.card["fitted_on"] == ("train and valid" if refit else "train")


def test_the_background_is_of_rows_that_the_bundle_was_fitted_on(rentals: Table) -> None:
    cfg = config("train", "data=rentals", "features=none", "model=linear", "refit=false", "interval=none", "n_background_rows=7")
    parts = split(rentals, cfg.split)
    bundle = build(cfg, rentals, parts, run_id="none")[0]
    known = {row.tobytes() for row in rentals.matrix[parts.train]}
    assert len(bundle.background) == 7
    assert all(row.tobytes() in known for row in bundle.background)


@pytest.mark.parametrize("name", ["geo", "full"])
def test_a_bundle_with_features_that_learned_predicts_the_same_when_read(towns: Table, tmp_path: Path, name: str) -> None:
    given = ("data=towns", f"features={name}", *SMALL[name], "model.estimator.n_estimators=15")
    bundle = build(config("train", *given), towns, split(towns, config("train", *given).split), run_id="none")[0]
    bundle.write(tmp_path / "bundle")
    read = Bundle.read(tmp_path / "bundle")
    np.testing.assert_array_equal(read.predict(towns.matrix), bundle.predict(towns.matrix))
    alone = [read.predict(row[None])[0] for row in towns.matrix[:40]]
    np.testing.assert_allclose(alone, bundle.predict(towns.matrix[:40]), rtol=1e-6)


def test_a_blend_predicts_the_same_when_read(towns: Table, tmp_path: Path) -> None:
    few = tuple(f"model.members.{name}.model.estimator.n_estimators=10" for name in ("near", "far"))
    cfg = config("train", "data=towns", "model=blend", "features=geo", *SMALL["geo"], *few)
    bundle = build(cfg, towns, split(towns, cfg.split), run_id="none")[0]
    bundle.write(tmp_path / "bundle")
    here_and_far = np.vstack([towns.matrix + np.array([away, away, 0, 0, 0, 0]) for away in (0.0, 0.1, 0.3, 9.0)])
    np.testing.assert_array_equal(Bundle.read(tmp_path / "bundle").predict(here_and_far), bundle.predict(here_and_far))
    assert len(bundle.ensemble.features) == 2 and bundle.ensemble.applicability is not None


def test_a_run_repeats_to_the_last_digit(towns: Table) -> None:
    cfg = config("train", "data=towns", "features=full", *SMALL["full"], "model.estimator.n_estimators=10", "n_threads=1")
    parts = split(towns, cfg.split)
    one, other = (build(cfg, towns, parts, run_id="none") for _ in range(2))
    np.testing.assert_array_equal(one[0].predict(towns.matrix), other[0].predict(towns.matrix))
    assert one[1]["rmse"] == other[1]["rmse"]
