"""Estimated errors of the default model on shifted windows of test rows, beside NannyML's direct loss estimation."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray
from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.core.config import CONF
from housing.core.environment import PROJECT
from housing.data.split import Split, split
from housing.data.table import Table, load
from housing.schema.column import Matrix, Vector
from housing.scoring.holdout import HoldoutPredictions
from housing.training.build import BuildSettings, build
from scripts.benchmarks.intervals import draw_parts
from tests.support.peer_environments import peer_python

N_WINDOWS, WINDOW_ROWS = 50, 1000
MAX_TILT = 1.5  # of the exponent by which a window prefers rows at one end of a column
N_RESAMPLES = 200
PEER = PROJECT / "scripts" / "benchmarks" / "peers" / "estimate_error.py"
Windows = list[NDArray[np.int64]]
Estimates = dict[str, Vector]  # of each window, by metric
METRICS = ("rmse", "mae")
DRAWS = range(110, 118)  # others than those by which settings are chosen


@dataclass(frozen=True)
class Comparison:
    """Estimates of one model on one set of windows.

    Attributes
    ----------
    deviations
        Relative deviation of each window's estimate from the realised error, by estimator and metric.
    inside
        Share of windows within two standard errors of the monitor, by metric.
    chance
        Mean deviation that chance alone makes, by metric.
    seconds
        Processor seconds for all windows, by estimator.
    """

    deviations: dict[str, Estimates]
    inside: dict[str, float]
    chance: dict[str, float]
    seconds: dict[str, float]


def print_error_estimates() -> None:
    """Print mean deviations of estimates from the realised error, over windows that each shift one column.

    First over several draws of the training and validation rows, then once over the test rows, which no setting was chosen by.
    """
    with initialize_config_dir(str(CONF), version_base=None):
        cfg = compose("train", [])
    table = load(cfg.data)
    parts = split(table, cfg.split)
    drawn = [_compare(cfg, table, draw_parts(parts, draw, len(table))) for draw in DRAWS]
    _print_comparisons(f"{len(drawn)} draws of training and validation rows", drawn)
    _print_comparisons("test rows", [_compare(cfg, table, parts)])


def _compare(cfg: DictConfig, table: Table, parts: Split) -> Comparison:
    """Fit the default model, and estimate its errors on windows of the test rows."""
    holdouts: list[HoldoutPredictions] = []
    bundle = build(BuildSettings.from_config(cfg), table, parts, run_id="none", on_fit=holdouts.append)[0]
    test = table.take(parts.test)
    matrix = test.matrix[:]
    windows = _draw_windows(matrix)
    predicted = bundle.predict(matrix)
    ours, errors, seconds = _estimate(bundle, matrix, windows)
    peer = _estimate_with_peer(table, holdouts[0], matrix, predicted, windows)
    error = test.target - predicted
    realised = {"rmse": np.sqrt(_means(np.square(error), windows)), "mae": _means(np.abs(error), windows)}
    return Comparison(
        {
            name: {metric: values[metric] / actual - 1 for metric, actual in realised.items()}
            for name, values in (("monitor", ours), ("NannyML", peer))
        },
        {metric: float(np.mean(np.abs(ours[metric] - actual) <= 2 * errors[metric])) for metric, actual in realised.items()},
        {"rmse": _chance(np.square(error), windows, 0.5), "mae": _chance(np.abs(error), windows, 1.0)},
        {"monitor": seconds, "NannyML": peer["seconds"].item()},
    )


def _print_comparisons(rows: str, comparisons: Sequence[Comparison]) -> None:
    print(f"| {rows} | RMSE | MAE | RMSE with sign | MAE with sign | µs a row |\n|---|{'---:|' * 5}")
    for name in comparisons[0].deviations:
        deviations = {
            metric: np.concatenate([comparison.deviations[name][metric] for comparison in comparisons]) for metric in METRICS
        }
        seconds = np.mean([comparison.seconds[name] for comparison in comparisons])
        cells = [f"{np.abs(values).mean():.1%}" for values in deviations.values()]
        cells += [f"{values.mean():+.1%}" for values in deviations.values()]
        print(f"| {name} | {' | '.join(cells)} | {1e6 * seconds / (N_WINDOWS * WINDOW_ROWS):.1f} |")
    chance = [f"{np.mean([comparison.chance[metric] for comparison in comparisons]):.1%}" for metric in METRICS]
    print(f"| chance alone | {' | '.join(chance)} | | | |")
    inside = [f"{np.mean([comparison.inside[metric] for comparison in comparisons]):.0%}" for metric in METRICS]
    print(f"Windows within two standard errors: {', '.join(inside)} (of {', '.join(METRICS)}).", flush=True)


def _draw_windows(matrix: Matrix) -> Windows:
    """Return the rows of windows. Each prefers rows at one end of a random column."""
    rng = np.random.default_rng(0)
    ranks = np.argsort(np.argsort(matrix, axis=0), axis=0) / (len(matrix) - 1) * 2 - 1
    windows = []
    for _ in range(N_WINDOWS):
        weight = np.exp(rng.uniform(-MAX_TILT, MAX_TILT) * ranks[:, rng.integers(matrix.shape[1])])
        windows.append(rng.choice(len(matrix), WINDOW_ROWS, replace=False, p=weight / weight.sum()))
    return windows


def _means(values: Vector, windows: Windows) -> Vector:
    return np.array([values[rows].mean() for rows in windows])


def _estimate(bundle: Bundle, matrix: Matrix, windows: Windows) -> tuple[Estimates, Estimates, float]:
    """Return the estimates of each window, their standard errors, and the processor seconds beside those of predictions."""
    assert bundle.interval is not None and bundle.interval.error_estimator is not None
    estimator = bundle.interval.error_estimator
    start = time.process_time()
    for rows in windows:
        bundle.predict(matrix[rows])
    predicted = time.process_time()
    estimates = []
    for rows in windows:
        size = bundle.predict_error_sizes(matrix[rows])[1]
        estimates.append((estimator.absolute.estimate(size), estimator.squared.estimate(np.square(size)).root()))
    seconds = (time.process_time() - predicted) - (predicted - start)
    columns = dict(zip(("mae", "rmse"), zip(*estimates, strict=True), strict=True))
    values = {name: np.array([estimate.value for estimate in column]) for name, column in columns.items()}
    errors = {name: np.array([estimate.standard_error for estimate in column]) for name, column in columns.items()}
    return values, errors, max(seconds, 0.0)


def _estimate_with_peer(
    table: Table, holdout: HoldoutPredictions, matrix: Matrix, predicted: Vector, windows: Windows
) -> Estimates:
    """Return the estimates of NannyML, which learns from the same held-out rows."""
    names = [column.name for column in table.schema.features]
    with tempfile.TemporaryDirectory() as folder:
        reference = pd.DataFrame(table.matrix[holdout.rows][:], columns=names)
        reference.assign(predicted=holdout.predicted, actual=table.target[holdout.rows]).to_csv(
            Path(folder) / "reference.csv", index=False
        )
        rows = np.concatenate(windows)
        pd.DataFrame(matrix[rows], columns=names).assign(predicted=predicted[rows]).to_csv(
            Path(folder) / "windows.csv", index=False
        )
        command = [peer_python("nannyml"), str(PEER), folder, str(WINDOW_ROWS)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=sys.stderr, text=True)
    return {name: np.array(values) for name, values in json.loads(done.stdout.splitlines()[-1]).items()}


def _chance(loss: Vector, windows: Windows, power: float) -> float:
    """Return the mean deviation of a window's error from that of resamples of its own rows: no estimate can know its rows."""
    rng = np.random.default_rng(0)
    deviations = []
    for rows in windows:
        resampled = loss[rng.choice(rows, (N_RESAMPLES, len(rows)))].mean(axis=1)
        deviations.append(np.abs((resampled / loss[rows].mean()) ** power - 1).mean())
    return float(np.mean(deviations))
