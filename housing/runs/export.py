"""Exported run results: scores and held-out predictions as files for other programs, such as DVC."""

import json
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from housing.core.files import atomic_write
from housing.runs.outcome import Outcome
from housing.runs.run import HOLDOUT
from housing.scoring.holdout import HoldoutPredictions
from housing.streaming.loading import load
from housing.tracking import store

METRICS_FILE, PREDICTIONS_FILE, RUN_ID_KEY = "metrics.json", "predictions.csv", "run_id"


def export(cfg: DictConfig, outcome: Outcome, folder: Path) -> None:
    """Write a run's metrics.json and predictions.csv, also if the run was reused.

    The predictions are those for the validation rows, by the fit on the training rows alone. Weights are a third column.

    Raises
    ------
    StoreError
        If the store does not hold the predictions.
    """
    with store.connect(cfg.mlflow).artifacts.directory(str(outcome.run_id), HOLDOUT) as directory:
        holdout = HoldoutPredictions.read(directory)
    scored = load(cfg).take(holdout.rows)
    columns = {"actual": scored.target, "predicted": holdout.predicted}
    with atomic_write(folder / PREDICTIONS_FILE) as partial:
        pd.DataFrame(columns if scored.weight is None else {**columns, "weight": scored.weight}).to_csv(partial, index=False)
    with atomic_write(folder / METRICS_FILE) as partial:
        content = {RUN_ID_KEY: outcome.run_id, **outcome.metrics}
        partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
