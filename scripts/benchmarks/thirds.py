"""The protocol of TabArena for its table `houses`: the logarithm of the price, and three folds of a third of the rows.

Erickson et al., "TabArena: A Living Benchmark for Machine Learning on Tabular Data", Advances in Neural Information Processing
Systems 38 (2025).
"""

import statistics
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold

from housing.core.environment import PROJECT
from housing.data.split import Split
from housing.data.table import load
from scripts.benchmarks.tables import measure_preset, table_config

TARGET = "MedHouseVal"
N_FOLDS = 3
VALIDATION_SHARE = 0.2  # of the rows that are not in the fold


def print_thirds() -> None:
    """Print the RMSE of the logarithm by `experiment=default` on each fold."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "houses.csv"
        frame = pd.read_csv(PROJECT / "data" / "california.csv")
        log_price = np.log(frame[TARGET])
        frame.assign(**{TARGET: log_price}).to_csv(file, index=False)
        bounds = (f"data.columns.{TARGET}.{name}={value}" for name, value in log_price.agg(["min", "max"]).items())
        cfg = table_config(Path(directory), "california", "experiment=default", "n_threads=1", f"data.path={file}", *bounds)
        table = load(cfg.data)
    folds = KFold(N_FOLDS, shuffle=True, random_state=0).split(table.matrix)
    runs = [measure_preset(cfg, table, _hold_out(rest, fold)) for rest, fold in folds]
    errors = [run.rmse for run in runs]
    print("| protocol | test RMSE of the logarithm | each | processor s |\n|---|---:|---|---:|")
    each = " ".join(f"{error:.4f}" for error in errors)
    print(f"| thirds | **{statistics.mean(errors):.4f}** | {each} | {statistics.mean(run.seconds for run in runs):.0f} |")


def _hold_out(rest: np.ndarray, fold: np.ndarray) -> Split:
    """Return the split of a fold. A fifth of the other rows, drawn at random, is for validation."""
    shuffled = np.random.default_rng(0).permutation(rest)
    n_valid = round(VALIDATION_SHARE * len(rest))
    return Split(np.sort(shuffled[n_valid:]), np.sort(shuffled[:n_valid]), fold)
