"""Cross-validation: groups that stay together, out-of-fold scores, and invalid folds."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig

from housing.core.config import instantiate
from housing.core.errors import ConfigError
from housing.data.split import grid_cells, group_units, split
from housing.data.table import Table, load
from housing.data.units import Units
from housing.fitting.callbacks import OnFold, no_op
from housing.fitting.fitting import FitSettings, fit
from housing.scoring.metrics import score
from housing.scoring.ranking_metric import RankingMetric
from housing.training.build import BuildSettings, build
from housing.training.cross_validation import CrossValidationSettings, ExpandingWindow, cross_validate
from tests.support.tables import SMALL_GEO, config, orders_frame

LINEAR = ("data=towns", "features=none", "model=linear")

ENCODING = "features.encoding.method=ordered"  # a fit alone chooses none


def cross_validated(cfg: DictConfig, table: Table, on_fold: OnFold = no_op) -> dict[str, float]:
    """Return the out-of-fold scores of a config on its split."""
    settings = CrossValidationSettings.from_config(cfg.evaluation)
    assert settings is not None
    return cross_validate(settings, FitSettings.from_config(cfg), RankingMetric(), table, split(table, cfg.split), on_fold)


def folds(table: Table, evaluation: str) -> list[tuple[Any, Any]]:
    """Return the folds of an evaluation, as row indices of the table."""
    cfg = config("train", *LINEAR, f"evaluation={evaluation}").evaluation
    groups = None if cfg.groups is None else instantiate(cfg.groups, table).of_row
    return list(instantiate(cfg.folds).split(np.arange(len(table)), groups=groups))


@pytest.mark.parametrize("evaluation", ["kfold", "grouped", "blocks"])
def test_each_row_is_held_out_once(towns: Table, evaluation: str) -> None:
    held_out = np.concatenate([fold for _, fold in folds(towns, evaluation)])
    assert sorted(held_out) == list(range(len(towns)))
    assert len(folds(towns, evaluation)) == 5


@pytest.mark.parametrize(
    ("evaluation", "group_of"),
    [("grouped", lambda table: group_units(table, None)), ("blocks", lambda table: grid_cells(table, 0.5))],
)
def test_no_location_and_no_cell_is_in_two_folds(towns: Table, evaluation: str, group_of: Any) -> None:
    group = group_of(towns).of_row
    assert len(set(group)) < len(towns)  # some rows share a group
    for others, fold in folds(towns, evaluation):
        assert not set(group[others]) & set(group[fold])
    shared = [set(group[others]) & set(group[fold]) for others, fold in folds(towns, "kfold")]
    assert any(shared)  # plain folds separate them


@pytest.mark.parametrize("evaluation", ["kfold", "grouped", "blocks"])
def test_the_score_is_out_of_fold(towns: Table, evaluation: str) -> None:
    cfg = config("train", *LINEAR, f"evaluation={evaluation}")
    parts = split(towns, cfg.split)
    rows = np.sort(np.concatenate([parts.train, parts.valid]))
    groups = None if cfg.evaluation.groups is None else instantiate(cfg.evaluation.groups, towns).of_row[rows]
    predicted = np.empty(len(rows))
    for others, fold in instantiate(cfg.evaluation.folds).split(rows, groups=groups):
        predicted[fold] = fit(FitSettings.from_config(cfg), towns, rows[others]).predict(towns.matrix[rows[fold]])
    reported: list[tuple[int, int]] = []
    scores = cross_validated(cfg, towns, lambda number, n_folds, _: reported.append((number, n_folds)))
    assert scores == score(predicted, towns.target[rows], None)
    assert reported == [(number, 5) for number in range(1, 6)]


def test_a_run_is_compared_by_the_score_of_its_evaluation(towns: Table) -> None:
    parts = split(towns, config("train", *LINEAR).split)
    built = {
        name: build(
            BuildSettings.from_config(config("train", *LINEAR, f"evaluation={name}", "interval=none")),
            towns,
            parts,
            run_id="none",
        )
        for name in ("holdout", "kfold", "grouped", "blocks")
    }
    for name in ("kfold", "grouped", "blocks"):
        assert built[name][1]["rmse"] == cross_validated(config("train", *LINEAR, f"evaluation={name}"), towns)["rmse"]
    assert len({metrics["rmse"] for _, metrics in built.values()}) == 4
    predictions = [bundle.predict(towns.matrix) for bundle, _ in built.values()]
    np.testing.assert_array_equal(predictions, [predictions[0]] * 4)  # the bundle is the same


def test_test_rows_are_not_used(towns: Table) -> None:
    cfg = config("train", *LINEAR, "evaluation=blocks")
    parts = split(towns, cfg.split)
    target = towns.target.copy()
    target[parts.test] = 1e9
    changed = dataclasses.replace(towns, target=target)
    assert cross_validated(cfg, changed) == cross_validated(cfg, towns)


def test_neighbour_features_help_less_if_whole_blocks_are_held_out(towns: Table) -> None:
    geo = ("data=towns", "features=geo", *SMALL_GEO, "model.estimator.n_estimators=60")
    rmse = {name: cross_validated(config("train", *geo, f"evaluation={name}"), towns)["rmse"] for name in ("kfold", "blocks")}
    assert rmse["blocks"] > 1.2 * rmse["kfold"]


@pytest.mark.parametrize("evaluation", ["grouped", "blocks"])
def test_spatial_groups_need_coordinates(rentals: Table, evaluation: str) -> None:
    cfg = config("train", "data=rentals", "features=none", "model=linear", f"evaluation={evaluation}")
    with pytest.raises(ConfigError, match="Table rentals has no columns with the roles latitude and longitude"):
        cross_validated(cfg, rentals)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("evaluation=blocks", "evaluation.groups.cell_degrees=90"), "evaluation=blocks .*n_splits=5 .*groups: 1"),
        (("evaluation=kfold", "evaluation.folds.n_splits=5000"), "evaluation=kfold .*5000"),
        (("evaluation=kfold", "evaluation.folds.n_splits=1"), "n_splits=1"),
        (("evaluation=blocks", "evaluation.groups.cell_degrees=0"), "cell_degrees must be above 0"),
    ],
)
def test_invalid_folds_are_refused(towns: Table, overrides: tuple[str, ...], message: str) -> None:
    cfg = config("train", *LINEAR, *overrides)
    with pytest.raises(ConfigError, match=message):
        cross_validated(cfg, towns)


@pytest.fixture(name="orders", scope="module")
def orders_fixture(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """Return 600 orders in 60 weeks, in random order."""
    path = tmp_path_factory.mktemp("orders") / "orders.csv"
    orders_frame().fillna({"price": 9.0}).sample(frac=1.0, random_state=0).to_csv(path, index=False)
    return load(config("train", "data=orders", f"data.path={path}").data)


def test_folds_follow_their_training_rows_in_time_and_leave_a_gap() -> None:
    weeks = np.random.default_rng(0).permutation(np.arange(600) // 10).astype(np.float64)
    seen: list[float] = []
    for training, fold in ExpandingWindow(5, gap=2).split(np.arange(600), weeks):
        assert weeks[training].max() + 3 == weeks[fold].min()
        seen += sorted(set(weeks[fold]))
    assert seen == list(range(10, 60))  # each week is in one fold, except for the first ones
    with pytest.raises(ValueError, match="there are 2 different times. Use fewer folds"):
        list(ExpandingWindow(5).split(np.arange(600), (np.arange(600) % 2).astype(np.float64)))


def test_validation_from_past_to_future_scores_the_rows_in_folds_only(orders: Table) -> None:
    cfg = config(
        "train", "data=orders", "features=none", "model=linear", "split=time", "split.gap=2", "evaluation=time", ENCODING
    )
    parts = split(orders, cfg.split)
    rows = np.sort(np.concatenate([parts.train, parts.valid]))
    assert orders.times is not None
    weeks, errors, scored = orders.times[rows], [], []
    for training, fold in ExpandingWindow(5, gap=2).split(rows, weeks):
        model = fit(FitSettings.from_config(cfg), orders, rows[training])
        errors += (orders.target[rows[fold]] - model.predict(orders.matrix[rows[fold]])).tolist()
        scored += rows[fold].tolist()
    mean = np.average(np.square(errors), weights=orders.weight_of(np.array(scored)))
    assert cross_validated(cfg, orders)["rmse"] == pytest.approx(np.sqrt(mean))


def test_folds_that_separate_what_the_split_keeps_together_are_announced(orders: Table, caplog: pytest.LogCaptureFixture) -> None:
    common = ("data=orders", "features=none", "model=linear", "split=time", ENCODING)
    cross_validated(config("train", *common, "evaluation=kfold"), orders)
    assert "evaluation=kfold separates values of week, which the split keeps together" in caplog.text
    caplog.clear()
    cross_validated(config("train", *common, "evaluation=time"), orders)
    assert not caplog.text


def test_intervals_out_of_fold_are_refused_for_a_split_by_time(orders: Table) -> None:
    cfg = config("train", "data=orders", "features=none", "model=linear", "split=time", "interval=quantile", ENCODING)
    with pytest.raises(ConfigError, match="a fit on folds would know the future. Use interval=scaled"):
        build(BuildSettings.from_config(cfg), orders, split(orders, cfg.split), run_id="none")


def test_rows_held_out_for_early_stopping_are_whole_units_and_the_latest_in_time() -> None:
    rows = np.random.default_rng(0).permutation(200)
    weeks = Units("weeks", np.arange(200) // 10, (np.arange(200) // 10).astype(np.float64))
    held_out = weeks.hold_out(rows)
    assert set(weeks.of_row[rows[held_out]]) == {18, 19}
    customers = Units("customers", np.arange(200) % 40)
    held_out = customers.hold_out(rows)
    assert held_out.sum() == 20 and not set(customers.of_row[rows[held_out]]) & set(customers.of_row[rows[~held_out]])
    assert Units("one", np.zeros(200, dtype=np.intp)).hold_out(rows).sum() == 20
