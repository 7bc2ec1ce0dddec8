"""Cross-validation: groups that stay together, out-of-fold scores, and invalid folds."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig

from housing.core.config import instantiate
from housing.core.errors import ConfigError
from housing.data.split import grid_cells, locations, split
from housing.data.table import Table
from housing.training.build import BuildSettings, build
from housing.training.callbacks import OnFold, no_op
from housing.training.cross_validation import CrossValidationSettings, cross_validate
from housing.training.fitting import FitSettings, fit
from housing.training.metrics import score
from housing.training.ranking_metric import RankingMetric
from tests.support.tables import SMALL_GEO, config

LINEAR = ("data=towns", "features=none", "model=linear")


def cross_validated(cfg: DictConfig, table: Table, on_fold: OnFold = no_op) -> dict[str, float]:
    """Return the out-of-fold scores of a config on its split."""
    settings = CrossValidationSettings.from_config(cfg.evaluation)
    assert settings is not None
    return cross_validate(settings, FitSettings.from_config(cfg), RankingMetric(), table, split(table, cfg.split), on_fold)


def folds(table: Table, evaluation: str) -> list[tuple[Any, Any]]:
    """Return the folds of an evaluation, as row indices of the table."""
    cfg = config("train", *LINEAR, f"evaluation={evaluation}").evaluation
    groups = None if cfg.groups is None else instantiate(cfg.groups, table)
    return list(instantiate(cfg.folds).split(np.arange(len(table)), groups=groups))


@pytest.mark.parametrize("evaluation", ["kfold", "grouped", "blocks"])
def test_each_row_is_held_out_once(towns: Table, evaluation: str) -> None:
    held_out = np.concatenate([fold for _, fold in folds(towns, evaluation)])
    assert sorted(held_out) == list(range(len(towns)))
    assert len(folds(towns, evaluation)) == 5


@pytest.mark.parametrize(("evaluation", "group_of"), [("grouped", locations), ("blocks", lambda table: grid_cells(table, 0.5))])
def test_no_location_and_no_cell_is_in_two_folds(towns: Table, evaluation: str, group_of: Any) -> None:
    group = group_of(towns)
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
    groups = None if cfg.evaluation.groups is None else instantiate(cfg.evaluation.groups, towns)[rows]
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
