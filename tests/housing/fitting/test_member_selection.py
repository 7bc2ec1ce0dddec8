"""Selection of members by their held-out predictions, from the config to the bundle."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from housing.core.errors import ConfigError
from housing.data.split import Split, split
from housing.data.table import Table
from housing.data.units import Units
from housing.fitting.estimators import Model
from housing.fitting.fitting import FitSettings, fit
from housing.runs.reproduction import reproduce
from housing.schema.table_schema import Schema
from housing.tracking import store as tracking_store
from housing.tracking import tags
from housing.training.build import BuildSettings, build
from tests.support.tables import config, rentals_frame, train

# Short fits with large steps.
SMALL = (
    "data=rentals",
    "experiment=default",
    "features=none",
    "features.encoding.method=target_mean",
    *(
        f"model.members.{name}.model.estimator.{value}"
        for name in ("boosted", "encoded", "shallow")
        for value in ("n_estimators=30", "learning_rate=0.2")
    ),
    "model.members.extra_trees.model.estimator.n_estimators=5",
    "model.selection_folds=1",
)
ROWS = 400


def make_table(target: Any) -> Table:
    """Return a table of two columns, whose target is a function of them and of normal noise."""
    random = np.random.default_rng(0)
    columns: dict[str, Any] = {"a": {"type": "float"}, "b": {"type": "float"}, "y": {"type": "float", "role": "target"}}
    matrix, keys = random.uniform(-1, 1, (ROWS, 2)), np.arange(ROWS).astype(bytes).astype(object)
    return Table(
        Schema.from_dict({"name": "t", "columns": columns}), matrix, target(*matrix.T, random.normal(size=ROWS)), keys, "t"
    )


def fit_default(table: Table, *overrides: str) -> tuple[Model, Split]:
    """Fit the small default model on the training rows, held out by the validation rows."""
    cfg = config("train", *SMALL, *overrides)
    parts = split(table, cfg.split)
    return fit(FitSettings.from_config(cfg), table, parts.train, parts.valid), parts


def test_a_sum_of_columns_is_left_to_the_linear_member() -> None:
    model, _ = fit_default(make_table(lambda a, b, noise: 100 * a + 30 * b + 0.1 * noise))
    assert list(model.selection.weights) == ["linear"]
    assert min(model.selection.held_out_rmse, key=model.selection.held_out_rmse.__getitem__) == "linear"
    assert len(model.ensemble.members) == len(model.ensemble.features) == 1


def test_steps_are_left_to_trees_and_the_mean_is_at_least_as_good_as_each_candidate() -> None:
    table = make_table(lambda a, b, noise: np.where(a > 0, 10.0, 0.0) * np.where(b > 0, 1.0, -1.0) + noise)
    model, parts = fit_default(table)
    weights, rmse = model.selection.weights, model.selection.held_out_rmse
    assert "linear" not in weights and set(rmse) == {"boosted", "encoded", "shallow", "extra_trees", "linear"}
    error = model.predict(table.matrix[parts.valid]) - table.target[parts.valid]
    assert np.sqrt(np.mean(error**2)) <= min(rmse.values())
    assert [member.weight for member in model.ensemble.members] == list(weights.values())


def test_a_candidate_that_is_far_from_the_best_is_left_out_even_if_it_would_lower_the_error() -> None:
    table = make_table(lambda a, b, noise: np.where(a > 0, 10.0, 0.0) + 8 * b + 4 * noise)
    far, near = (fit_default(table, f"model.max_relative_rmse={limit}")[0].selection for limit in ("1.0", "null"))
    assert list(far.weights) == [min(far.held_out_rmse, key=far.held_out_rmse.__getitem__)]
    assert len(near.weights) > 1 and near.held_out_rmse == far.held_out_rmse
    with pytest.raises(ConfigError, match=r"model.max_relative_rmse must be a number, at least 1, or null \(got 0.9\)"):
        fit_default(table, "model.max_relative_rmse=0.9")


def test_small_tables_select_by_the_out_of_fold_predictions_of_all_rows() -> None:
    table = make_table(lambda a, b, noise: np.exp(np.where(a > 0, 2.0, 0.0) + b + 0.1 * noise))
    model, parts = fit_default(table, "model.selection_folds=3")
    n_rows = len(parts.train) + len(parts.valid)
    assert model.selection.n_rows == n_rows
    assert set(model.selection.held_out_rmse) < {"boosted", "encoded", "shallow", "extra_trees", "linear"}  # the close ones
    assert model.best_rounds != {name: fit_default(table)[0].best_rounds[name] for name in model.best_rounds}  # means of folds
    at_limit, above = (
        fit_default(table, "model.selection_folds=3", f"model.selection_folds_max_rows={n_rows - more}") for more in (0, 1)
    )
    assert at_limit[0].selection == model.selection
    assert above[0].selection.n_rows == len(parts.valid)


def test_selection_folds_divide_whole_units_and_never_rows_that_are_ordered_in_time() -> None:
    random = np.random.default_rng(0)
    of_row = np.arange(ROWS) // 20
    level = random.normal(size=ROWS // 20)[of_row]  # of each unit, which its other rows would give away
    table = make_table(lambda a, b, noise: level + 0.1 * noise)
    table.matrix[:, 0] = of_row
    cfg = config("train", *SMALL, "model.selection_folds=3")
    settings, is_valid = FitSettings.from_config(cfg), of_row % 5 == 0
    rows = np.flatnonzero(~is_valid), np.flatnonzero(is_valid)
    by_row, by_unit, in_time = (
        fit(settings, table, *rows, units=units).selection
        for units in (None, Units("units", of_row), Units("units", of_row, of_row.astype(float)))
    )
    assert min(by_row.held_out_rmse.values()) < 0.8 * min(by_unit.held_out_rmse.values())
    assert (by_row.n_rows, by_unit.n_rows, in_time.n_rows) == (ROWS, ROWS, is_valid.sum())


def test_a_later_fit_takes_the_members_and_weights_of_the_first() -> None:
    table = make_table(lambda a, b, noise: np.where(a > 0, 10.0, 0.0) + b + noise)
    first, parts = fit_default(table)
    settings = FitSettings.from_config(config("train", *SMALL))
    again = fit(settings, table, np.concatenate([parts.train, parts.valid]), first=first)
    assert again.selection.weights == first.selection.weights
    assert [member.weight for member in again.ensemble.members] == [member.weight for member in first.ensemble.members]


def test_a_member_is_left_out_of_fits_on_more_rows_than_its_limit() -> None:
    table = make_table(lambda a, _, noise: a + noise)
    n_rows = len(np.concatenate([(parts := fit_default(table)[1]).train, parts.valid]))
    for limit, is_candidate in ((n_rows, True), (n_rows - 1, False)):
        model, _ = fit_default(table, f"model.members.extra_trees.max_rows={limit}")
        assert ("extra_trees" in model.selection.held_out_rmse) == is_candidate


def test_the_logarithm_is_a_candidate_for_skewed_targets_only() -> None:
    skewed = make_table(lambda a, b, noise: np.exp(2 * a + b + 0.1 * noise))
    symmetric = make_table(lambda a, b, noise: 100 + a + b + noise)
    assert set(fit_default(skewed)[0].rmse_by_transform) == {"none", "log"}
    assert set(fit_default(symmetric)[0].rmse_by_transform) == {"none"}
    assert set(fit_default(symmetric, "target.min_skewness=null")[0].rmse_by_transform) == {"none", "log"}


def test_members_of_regions_cannot_be_selected() -> None:
    with pytest.raises(ConfigError, match="select_members=true needs model.applicability=null"):
        fit_default(make_table(lambda a, _, noise: a + noise), "model.applicability={quantile: 0.95, factor: 1}")


def test_the_bundle_of_the_default_model_predicts_like_its_members(caplog: pytest.LogCaptureFixture) -> None:
    table = make_table(lambda a, b, noise: 50 + np.where(a > 0, 10.0, 0.0) + 5 * b + noise)
    cfg = config("train", *SMALL)
    parts = split(table, cfg.split)
    with caplog.at_level(logging.INFO):
        bundle, metrics = build(BuildSettings.from_config(cfg), table, parts, run_id="none")
    members = bundle.card["members"]
    assert sum(members["weights"].values()) >= 1 and set(members["weights"]) <= set(members["held_out_rmse"])
    assert f"Members, selected by RMSE on {len(parts.valid)} held-out rows: " in caplog.text
    assert metrics["rmse"] <= min(members["held_out_rmse"].values()) * 1.001
    error = bundle.predict(table.matrix[parts.test]) - table.target[parts.test]
    assert np.sqrt(np.mean(error**2)) < 1.5


@pytest.mark.long
def test_a_run_names_its_members_and_is_reproduced(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUSING_HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    rentals_frame().to_csv(tmp_path / "data" / "rentals.csv", index=False)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    outcome = train(tmp_path, *SMALL, "figures=false")
    run = tracking_store.connect(config("train", *SMALL).mlflow).runs.get(str(outcome.run_id))
    assert "linear" in run.tags[tags.MEMBERS] and run.tags[tags.TRANSFORM] == "none"
    repeated = reproduce(config("reproduce", f"run_id={outcome.run_id}"))
    assert all(comparison.is_equal for comparison in repeated)
