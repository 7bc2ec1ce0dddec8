"""TODO docstring."""

import numpy as np
from omegaconf import DictConfig

from housing.core.config import instantiate
from housing.core.errors import ConfigError
from housing.data.split import Split
from housing.data.table import Table
from housing.training.callbacks import OnFold, no_op
from housing.training.fitting import fit
from housing.training.metrics import score


def cross_validate(cfg: DictConfig, table: Table, parts: Split, on_fold: OnFold = no_op) -> dict[str, float]:
    """Score predictions for all rows but the test rows, each made by a model that was fitted on the other folds.

    `after_fold` is told the scores over the folds so far, and may raise to give up.
    """
    rows = np.sort(np.concatenate([parts.train, parts.valid]))
    groups = None if cfg.evaluation.groups is None else instantiate(cfg.evaluation.groups, table)[rows]
    try:
        folds = list(instantiate(cfg.evaluation.folds).split(rows, groups=groups))
    except ValueError as error:  # more folds than there are rows or groups
        raise ConfigError(f"evaluation={cfg.evaluation.name}: {error}") from error
    predicted, actual = np.full(len(rows), np.nan), table.target[rows]
    for number, (others, fold) in enumerate(folds, start=1):
        predicted[fold] = fit(cfg, table, rows[others]).predict(table.matrix[rows[fold]])
        done = ~np.isnan(predicted)
        on_fold(number, len(folds), score(predicted[done], actual[done]))
    return score(predicted, actual)
