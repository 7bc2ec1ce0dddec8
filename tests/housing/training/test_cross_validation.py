"""Cross-validation: which rows are held out together, and that the score is of rows that the model did not see."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from housing.core.config import instantiate
from housing.core.errors import ConfigError
from housing.data.split import grid_cells, locations, split
from housing.data.table import Table
from housing.training import cross_validation, fitting
from housing.training.build import build
from housing.training.metrics import score
from tests.support.tables import SMALL_GEO, config

LINEAR = ("data=towns", "features=none", "model=linear")


def folds(table: Table, evaluation: str) -> list[tuple[Any, Any]]:
    """The folds of an evaluation, as numbers of the table's rows."""
    cfg = config("train", *LINEAR, f"evaluation={evaluation}").evaluation
    groups = None if cfg.groups is None else instantiate(cfg.groups, table)
    return list(instantiate(cfg.folds).split(np.arange(len(table)), groups=groups))


@pytest.mark.parametrize("evaluation", ["kfold", "grouped", "blocks"])
def test_each_row_is_held_out_once(towns: Table, evaluation: str) -> None:
    held_out = np.concatenate([fold for _, fold in folds(towns, evaluation)])
    assert sorted(held_out) == list(range(len(towns)))
    assert len(folds(towns, evaluation)) == 5


@pytest.mark.parametrize(("evaluation", "group_of"), [("grouped", locations), ("blocks", lambda table: grid_cells(table, 0.5))])
def test_no_place_and_no_cell_is_in_two_folds(towns: Table, evaluation: str, group_of: Any) -> None:
    group = group_of(towns)
    assert len(set(group)) < len(towns)  # some rows go together
    for others, fold in folds(towns, evaluation):
        assert not set(group[others]) & set(group[fold])
    shared = [set(group[others]) & set(group[fold]) for others, fold in folds(towns, "kfold")]
    assert any(shared)  # by chance they would be torn apart


@pytest.mark.parametrize("evaluation", ["kfold", "grouped", "blocks"])
def test_the_score_is_that_of_models_that_did_not_see_the_fold(towns: Table, evaluation: str) -> None:
    cfg = config("train", *LINEAR, f"evaluation={evaluation}")
    parts = split(towns, cfg.split)
    rows = np.sort(np.concatenate([parts.train, parts.valid]))
    groups = None if cfg.evaluation.groups is None else instantiate(cfg.evaluation.groups, towns)[rows]
    predicted = np.empty(len(rows))
    for others, fold in instantiate(cfg.evaluation.folds).split(rows, groups=groups):
        predicted[fold] = fitting.fit(cfg, towns, rows[others]).predict(towns.matrix[rows[fold]])
    told: list[tuple[int, int]] = []
    scored = cross_validation.cross_validate(cfg, towns, parts, lambda number, all_of_them, _: told.append((number, all_of_them)))
    assert scored == score(predicted, towns.target[rows])
    assert told == [(number, 5) for number in range(1, 6)]


def test_a_run_is_compared_by_the_score_of_its_evaluation(towns: Table) -> None:
    parts = split(towns, config("train", *LINEAR).split)
    by = {
        name: build(config("train", *LINEAR, f"evaluation={name}", "interval=none"), towns, parts, run_id="none")
        for name in ("holdout", "kfold", "grouped", "blocks")
    }
    for name in ("kfold", "grouped", "blocks"):
        assert (
            by[name][1]["rmse"]
            == cross_validation.cross_validate(config("train", *LINEAR, f"evaluation={name}"), towns, parts)["rmse"]
        )
    assert len({metrics["rmse"] for _, metrics in by.values()}) == 4
    predictions = [bundle.predict(towns.matrix) for bundle, _ in by.values()]
    np.testing.assert_array_equal(predictions, [predictions[0]] * 4)  # the bundle is the same


def test_test_rows_take_no_part(towns: Table) -> None:
    cfg = config("train", *LINEAR, "evaluation=blocks")
    parts = split(towns, cfg.split)
    target = towns.target.copy()
    target[parts.test] = 1e9
    changed = dataclasses.replace(towns, target=target)
    assert cross_validation.cross_validate(cfg, changed, parts) == cross_validation.cross_validate(cfg, towns, parts)


def test_neighbours_help_less_where_whole_blocks_are_held_out(towns: Table) -> None:
    geo = ("data=towns", "features=geo", *SMALL_GEO, "model.estimator.n_estimators=60")
    parts = split(towns, config("train", *geo).split)
    rmse = {
        name: cross_validation.cross_validate(config("train", *geo, f"evaluation={name}"), towns, parts)["rmse"]
        for name in ("kfold", "blocks")
    }
    assert rmse["blocks"] > 1.2 * rmse["kfold"]


@pytest.mark.parametrize("evaluation", ["grouped", "blocks"])
def test_a_table_without_coordinates_has_no_groups(rentals: Table, evaluation: str) -> None:
    cfg = config("train", "data=rentals", "features=none", "model=linear", f"evaluation={evaluation}")
    with pytest.raises(ConfigError, match="table rentals has no columns with the roles latitude and longitude"):
        cross_validation.cross_validate(cfg, rentals, split(rentals, cfg.split))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("evaluation=blocks", "evaluation.groups.cell_degrees=90"), "evaluation=blocks: .*n_splits=5 .*groups: 1"),
        (("evaluation=kfold", "evaluation.folds.n_splits=5000"), "evaluation=kfold: .*5000"),
        (("evaluation=kfold", "evaluation.folds.n_splits=1"), "n_splits=1"),
        (("evaluation=blocks", "evaluation.groups.cell_degrees=0"), "cell_degrees is 0; allowed: above 0"),
    ],
)
def test_folds_that_cannot_be_are_refused(towns: Table, overrides: tuple[str, ...], message: str) -> None:
    cfg = config("train", *LINEAR, *overrides)
    with pytest.raises(ConfigError, match=message):
        cross_validation.cross_validate(cfg, towns, split(towns, cfg.split))
