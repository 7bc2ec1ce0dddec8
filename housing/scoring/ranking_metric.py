"""The metric that runs are ranked by: a score of the project, one of scikit-learn, or a function of the user's own."""

import difflib
import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from omegaconf import DictConfig, OmegaConf

from housing.core.config import instantiate
from housing.core.errors import ConfigError
from housing.schema.column import Vector
from housing.scoring.metrics import SCORES, score

SKLEARN_METRICS = {
    "medae": "median_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "rmsle": "root_mean_squared_log_error",
}
PINBALL = re.compile(r"pinball_(0?\.\d+)")  # pinball_0.9 is the pinball loss of the quantile 0.9
BUILT_IN = (*SCORES, *SKLEARN_METRICS)


@dataclass(frozen=True)
class RankingMetric:
    """A metric of predictions.

    Attributes
    ----------
    function
        Takes the actual and the predicted values, and `sample_weight` if it accepts weights. None: `score` computes the metric.
    """

    name: str = "rmse"
    function: Callable[..., Any] | None = None

    @classmethod
    def from_config(cls, cfg: DictConfig) -> Self:
        """Return the metric that `metric` names.

        Raises
        ------
        ConfigError
            If there is no such metric.
        TargetError
            If the function cannot be imported.
        """
        name = str(cfg.metric)
        if name in cfg.metric_functions:
            return cls(name, instantiate(OmegaConf.create({**cfg.metric_functions[name], "_partial_": True})))
        if name in SCORES:
            return cls(name)
        if name in SKLEARN_METRICS or PINBALL.fullmatch(name):
            return cls(name, _sklearn_function(name))
        known = (*BUILT_IN, *map(str, cfg.metric_functions))
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {nearest[0]}?" if nearest else ""
        raise ConfigError(
            f"metric must be one of {', '.join(known)}, or pinball_QUANTILE such as pinball_0.9 (got {name!r}).{hint}"
            " A function of your own is a file of the config group metric_functions."
        )

    def check(self, actual: Vector) -> None:
        """Raise ConfigError if the metric is not defined for these targets."""
        if self.name == "mape" and not actual.all():
            raise ConfigError("metric=mape is not defined: a target is 0, and errors are divided by it. Use mae or rmsle.")
        if self.name == "rmsle" and (actual < 0).any():
            raise ConfigError(
                f"metric=rmsle is not defined: a target is negative ({actual.min():g}), and it has no logarithm. Use rmse or mae."
            )
        if self.function is not None and len(actual):
            self._compute(actual, actual, np.ones(len(actual)))

    def score(self, predicted: Vector, actual: Vector, weight: Vector | None) -> dict[str, float]:
        """Return RMSE, MAE, R2 and this metric."""
        scores = score(predicted, actual, weight)
        if self.function is not None:
            scores[self.name] = self._compute(predicted, actual, weight)
        return scores

    def _compute(self, predicted: Vector, actual: Vector, weight: Vector | None) -> float:
        assert self.function is not None
        try:
            value = float(self.function(actual, predicted, **_weight_argument(self.function, weight)))
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"metric={self.name} failed: {error}. Expected a function of (y_true, y_pred) that returns a number."
            ) from error
        if not math.isfinite(value):
            raise ConfigError(f"metric={self.name} must be a finite number (got {value:g}).")
        return value


def _weight_argument(function: Callable[..., Any], weight: Vector | None) -> Mapping[str, Vector]:
    if weight is None or "sample_weight" not in inspect.signature(function).parameters:
        return {}
    return {"sample_weight": weight}


def _sklearn_function(name: str) -> Callable[..., Any]:
    from sklearn import metrics  # pylint: disable=import-outside-toplevel  # takes seconds to import

    if match := PINBALL.fullmatch(name):
        quantile = float(match[1])
        return lambda actual, predicted, sample_weight=None: metrics.mean_pinball_loss(
            actual, predicted, sample_weight=sample_weight, alpha=quantile
        )
    function: Callable[..., Any] = getattr(metrics, SKLEARN_METRICS[name])
    if name == "rmsle":  # a prediction below 0 counts as 0
        return lambda actual, predicted, sample_weight=None: function(
            actual, np.maximum(predicted, 0.0), sample_weight=sample_weight
        )
    return function
