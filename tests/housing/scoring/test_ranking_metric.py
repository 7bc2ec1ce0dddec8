"""The metric that runs are ranked by: its values, targets for which it is not defined, and functions of one's own."""

from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig
from sklearn import metrics

from housing.core.errors import ConfigError
from housing.data.split import split
from housing.data.table import Table
from housing.runs.outcome import Outcome
from housing.schema.column import Vector
from housing.scoring.ranking_metric import RankingMetric
from housing.sweeps.ranking import Ranking, best_outcomes
from housing.training.build import BuildSettings, build
from tests.support.tables import config, train

ACTUAL, PREDICTED, WEIGHT = np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.0, 3.0]), np.array([1.0, 2.0, 1.0])
THIS_FILE = "tests.housing.scoring.test_ranking_metric"


def largest_error(y_true: Vector, y_pred: Vector, scale: float = 1.0) -> float:
    """Return the largest error."""
    return float(np.abs(y_true - y_pred).max()) * scale


def words(y_true: Vector, y_pred: Vector) -> str:
    """Return no number."""
    return f"{len(y_true)} and {len(y_pred)} values"


def undefined(_: Vector, y_pred: Vector) -> float:
    """Return NaN."""
    return float(y_pred[0] * np.nan)


def metric_config(metric: str, **functions: object) -> DictConfig:
    """Return a config with this metric."""
    cfg = config("train", "data=rentals", "features=none", "model=linear", "interval=none", f"metric={metric}")
    cfg.metric_functions = functions
    return cfg


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("medae", metrics.median_absolute_error(ACTUAL, PREDICTED, sample_weight=WEIGHT)),
        ("mape", metrics.mean_absolute_percentage_error(ACTUAL, PREDICTED, sample_weight=WEIGHT)),
        ("rmsle", metrics.root_mean_squared_log_error(ACTUAL, PREDICTED, sample_weight=WEIGHT)),
        ("r2", metrics.r2_score(ACTUAL, PREDICTED, sample_weight=WEIGHT)),
        ("pinball_0.9", metrics.mean_pinball_loss(ACTUAL, PREDICTED, alpha=0.9, sample_weight=WEIGHT)),
    ],
)
def test_metrics_follow_their_definitions(name: str, expected: float) -> None:
    metric = RankingMetric.from_config(metric_config(name))
    metric.check(ACTUAL)
    assert metric.score(PREDICTED, ACTUAL, WEIGHT)[name] == pytest.approx(expected)


def test_a_negative_prediction_counts_as_0_in_a_logarithmic_error() -> None:
    scores = RankingMetric.from_config(metric_config("rmsle")).score(np.array([-5.0]), np.array([0.0]), None)
    assert scores["rmsle"] == 0


def test_a_function_of_ones_own_ranks_runs(rentals: Table) -> None:
    cfg = metric_config("largest", largest={"_target_": f"{THIS_FILE}.{largest_error.__name__}", "scale": 2.0})
    parts = split(rentals, cfg.split)
    bundle, scores = build(BuildSettings.from_config(cfg), rentals, parts, run_id="none")
    assert scores["largest"] > scores["rmse"]
    assert bundle.card["metrics"]["largest"] == pytest.approx(scores["largest"], rel=1e-5)


@pytest.mark.parametrize(
    ("metric", "function", "target", "message"),
    [
        ("rmes", None, ACTUAL, "metric must be one of rmse, mae, r2, .*got 'rmes'.*Did you mean rmse?"),
        ("pinball_9", None, ACTUAL, "or pinball_QUANTILE such as pinball_0.9 .got 'pinball_9'"),
        ("mape", None, np.array([1.0, 0.0]), "metric=mape is not defined: a target is 0"),
        ("rmsle", None, np.array([1.0, -2.0]), "metric=rmsle is not defined: a target is negative .-2."),
        ("own", f"{THIS_FILE}.missing", ACTUAL, "Error locating target"),
        ("own", f"{THIS_FILE}.{words.__name__}", ACTUAL, "metric=own failed: .*Expected a function of .y_true, y_pred."),
        ("own", f"{THIS_FILE}.{undefined.__name__}", ACTUAL, "metric=own must be a finite number .got nan."),
    ],
)
def test_a_metric_that_cannot_be_computed_is_refused(metric: str, function: str | None, target: Vector, message: str) -> None:
    functions = {} if function is None else {"own": {"_target_": function}}
    with pytest.raises(ConfigError, match=message):
        RankingMetric.from_config(metric_config(metric, **functions)).check(target)


def test_a_run_logs_the_metric_that_ranks_it(home: Path) -> None:
    run = train(home, "model=linear", "interval=none", "figures=false", "metric=mape")
    assert 0 < run.metrics["mape"] < 1
    with pytest.raises(ConfigError, match="Did you mean rmse"):
        train(home, "model=linear", "metric=rmes")


def test_higher_values_of_r2_are_better() -> None:
    outcomes = [Outcome(["model.d=1"], "FINISHED", metrics={"r2": value}) for value in (0.5, 0.9, 0.7)]
    ranking = Ranking("", outcomes, ["r2"])
    assert ranking.finished == [1, 2, 0] and ranking.direction == "higher is better"
    assert best_outcomes(outcomes, "r2") == [outcomes[1]]
