"""Exported run results: scores and held-out predictions as files for other programs, such as DVC."""

import json
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from housing.core.files import atomic_write
from housing.data import table
from housing.runs.outcome import Outcome
from housing.runs.run import HOLDOUT
from housing.tracking import store
from housing.training.holdout import HoldoutPredictions

METRICS_FILE, PREDICTIONS_FILE, RUN_ID_KEY = "metrics.json", "predictions.csv", "run_id"


def export(cfg: DictConfig, outcome: Outcome, folder: Path) -> None:
    """Write a run's metrics.json and predictions.csv, also if the run was reused.

    The predictions are those for the validation rows, by the fit on the training rows alone.

    Raises
    ------
    StoreError
        If the store does not hold the predictions.
    """
    with store.connect(cfg.mlflow).artifacts.directory(str(outcome.run_id), HOLDOUT) as directory:
        holdout = HoldoutPredictions.read(directory)
    actual = table.load(cfg.data, cfg.max_rows).target[holdout.rows]
    with atomic_write(folder / PREDICTIONS_FILE) as partial:
        pd.DataFrame({"actual": actual, "predicted": holdout.predicted}).to_csv(partial, index=False)
    with atomic_write(folder / METRICS_FILE) as partial:
        content = {RUN_ID_KEY: outcome.run_id, **outcome.metrics}
        partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
