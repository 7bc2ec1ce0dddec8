"""Program of an AutoML library: LIBRARY FOLDER SECONDS fits FOLDER/train.parquet and scores FOLDER/test.parquet.

It runs in an environment of its own, without this project. The last column of both files is the target.
"""

# pylint: disable=import-outside-toplevel,import-error  # each library is installed in one environment only

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

N_THREADS = len(os.sched_getaffinity(0))
N_CALLS = 20  # predictions of one row that are timed
MEGABYTE = 1e6

Predict = Callable[[pd.DataFrame], Any]


def main() -> None:
    """Print the RMSE, the size of the model's files in MB, the milliseconds for one row, and the seconds of the fit."""
    library, folder, seconds = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    train, test = (pd.read_parquet(folder / f"{name}.parquet") for name in ("train", "test"))
    features, target = test.iloc[:, :-1], test.iloc[:, -1]
    models = folder / library
    start = time.perf_counter()
    predict = FITS[library](train, models, seconds)
    fitted = time.perf_counter() - start
    rmse = float(np.sqrt(np.mean(np.square(np.asarray(predict(features), dtype=float) - target))))
    size = sum(path.stat().st_size for path in models.rglob("*") if path.is_file()) / MEGABYTE
    print(json.dumps({"rmse": rmse, "megabytes": size, "milliseconds": _milliseconds(predict, features), "seconds": fitted}))


def _milliseconds(predict: Predict, features: pd.DataFrame) -> float:
    times = []
    for index in range(N_CALLS):
        row = features.iloc[[index % len(features)]]
        start = time.perf_counter()
        predict(row)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def _fit_autogluon(train: pd.DataFrame, models: Path, seconds: float) -> Predict:
    from autogluon.tabular import TabularPredictor

    predictor = TabularPredictor(train.columns[-1], "regression", "rmse", path=str(models), verbosity=0)
    predictor.fit(train, presets="best_quality", time_limit=seconds, num_cpus=N_THREADS, num_gpus=0)
    predictor.persist()
    predict: Predict = predictor.predict
    return predict


def _fit_flaml(train: pd.DataFrame, models: Path, seconds: float) -> Predict:
    import pickle

    from flaml import AutoML

    automl = AutoML()
    automl.fit(
        train.iloc[:, :-1],
        train.iloc[:, -1],
        task="regression",
        metric="rmse",
        time_budget=seconds,
        ensemble=True,
        n_jobs=N_THREADS,
        verbose=0,
    )
    models.mkdir()
    (models / "model.pickle").write_bytes(pickle.dumps(automl.model))
    predict: Predict = automl.predict
    return predict


def _fit_mljar(train: pd.DataFrame, models: Path, seconds: float) -> Predict:
    from supervised.automl import AutoML

    automl = AutoML(
        results_path=str(models),
        mode="Compete",
        ml_task="regression",
        total_time_limit=int(seconds),
        eval_metric="rmse",
        n_jobs=N_THREADS,
        verbose=0,
    )
    automl.fit(train.iloc[:, :-1], train.iloc[:, -1])
    predict: Predict = automl.predict
    return predict


FITS: dict[str, Callable[[pd.DataFrame, Path, float], Predict]] = {
    "autogluon": _fit_autogluon,
    "flaml": _fit_flaml,
    "mljar": _fit_mljar,
}

if __name__ == "__main__":
    main()
