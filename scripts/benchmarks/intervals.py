"""Prediction intervals of the default model: how narrow they are, and where they cover, by config of `conf/interval`."""

import time

import numpy as np
from hydra import compose, initialize_config_dir

from housing.core.config import CONF
from housing.data.split import Split, split
from housing.data.table import load
from housing.schema.column import Vector
from housing.training.build import BuildSettings, build

NAMES, N_DRAWS, COVERAGE, N_PARTS = ("scaled", "quantile"), 3, 0.9, 5
MEASURES = ("interval score", "coverage", "worst fifth", "mean width")


def print_intervals() -> None:
    """Print the means over several draws of fitted and scored rows. The test rows of the table are not used."""
    print(f"| `interval=` | {' | '.join(MEASURES)} | training, s |\n|---|{'---:|' * (len(MEASURES) + 1)}")
    for name in NAMES:
        measured = np.mean([_measure(name, draw) for draw in range(N_DRAWS)], axis=0)
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in measured[:-1])} | {measured[-1]:.0f} |", flush=True)


def _measure(name: str, draw: int) -> Vector:
    """Fit four fifths of the training and validation rows, and score the rest."""
    with initialize_config_dir(str(CONF), version_base=None):
        cfg = compose("train", [f"interval={name}", f"seed={draw}"])
    table = load(cfg.data)
    parts = _draw_parts(split(table, cfg.split), draw)
    start = time.process_time()
    bundle = build(BuildSettings.from_config(cfg), table, parts, run_id="none")[0]
    seconds = time.process_time() - start
    predicted, lower, upper = bundle.predict_interval(table.matrix[parts.test], COVERAGE)
    actual = table.target[parts.test]
    inside, by_prediction = (lower <= actual) & (actual <= upper), np.argsort(predicted, kind="stable")
    worst = min(inside[part].mean() for part in np.array_split(by_prediction, N_PARTS))
    return np.array([interval_score(lower, upper, actual), inside.mean(), worst, (upper - lower).mean(), seconds])


def _draw_parts(parts: Split, draw: int) -> Split:
    """Divide training and validation rows anew: 64 % to fit, 16 % to validate, 20 % to score."""
    rows = np.random.default_rng(draw).permutation(np.concatenate([parts.train, parts.valid]))
    first_valid, first_scored = int(0.64 * len(rows)), int(0.8 * len(rows))
    fitted, validated, scored = rows[:first_valid], rows[first_valid:first_scored], rows[first_scored:]
    return Split(np.sort(fitted), np.sort(validated), np.sort(scored), parts.units)


def interval_score(lower: Vector, upper: Vector, actual: Vector) -> float:
    """Return the mean interval score, in the target's unit; lower is better.

    Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", JASA 102 (2007) 359-378, equation 43.
    """
    outside = np.maximum(lower - actual, 0) + np.maximum(actual - upper, 0)
    return float(np.mean(upper - lower + 2 / (1 - COVERAGE) * outside))
