"""Prediction intervals of the default model: how narrow they are, and where they cover, by config of `conf/interval`."""

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir

from housing.core.config import CONF
from housing.core.environment import PROJECT
from housing.data.split import Split, split
from housing.data.table import load
from housing.schema.column import Vector
from housing.training.build import BuildSettings, build
from scripts.benchmarks.processes import run

NAMES, COVERAGE, N_PARTS = ("scaled", "quantile"), 0.9, 5
DRAWS = range(10, 15)  # others than those that the settings of conf/interval were chosen by
Described = AbstractContextManager[tuple[str, Sequence[str]]]  # the name of a table, and the overrides that select it
MAX_ROWS = 3000  # of each table that is named on the command line
CALIFORNIA: tuple[str, Sequence[str]] = ("california", ())
MEASURES = ("interval score", "coverage", "worst fifth", "mean width")


def print_intervals(arguments: Sequence[str] = ()) -> None:
    """Print the means over several draws of fitted and scored rows. The test rows of California are not used.

    Parameters
    ----------
    arguments
        A folder, and FILE=TARGET for each file in it. Without any, California.
    """
    folder, *pairs = arguments or ("",)
    if arguments and not (pairs and all("=" in pair for pair in pairs)):
        sys.exit("error: intervals needs a folder, and FILE=TARGET for each file in it, such as: data houses.csv=price")
    print(f"| table | `interval=` | {' | '.join(MEASURES)} | training, s |\n|---|---|{'---:|' * (len(MEASURES) + 1)}")
    described: list[Described] = [_describe(folder, pair) for pair in pairs]
    for table_config in described or [nullcontext(CALIFORNIA)]:
        with table_config as (table, overrides):
            for name in NAMES:
                measured = np.mean([_measure(name, overrides, draw) for draw in DRAWS], axis=0)
                cells = (f"{measured[0]:.4g}", *(f"{value:.3f}" for value in measured[1:3]), f"{measured[3]:.4g}")
                print(f"| {table} | {name} | {' | '.join(cells)} | {measured[-1]:.0f} |", flush=True)


@contextmanager
def _describe(folder: str, pair: str) -> Iterator[tuple[str, Sequence[str]]]:
    """Return the name of a table, and the overrides that select its declaration by housing.describe."""
    file, _, target = pair.partition("=")
    with tempfile.TemporaryDirectory() as home:
        path = (PROJECT / folder / file).resolve()
        run("-m", "housing.describe", f"--config-dir={home}", f"file='{path}'", f"target='{target}'", home=home)
        (declaration,) = (Path(home) / "data").glob("*.yaml")
        yield declaration.stem, (f"hydra.searchpath=[file://{home}]", f"data={declaration.stem}", "split=random")


def _measure(name: str, overrides: Sequence[str], draw: int) -> Vector:
    """Fit four fifths of the training and validation rows, and score the rest."""
    with initialize_config_dir(str(CONF), version_base=None):
        cfg = compose("train", [*overrides, f"interval={name}", f"seed={draw}"])
    table = load(cfg.data)
    parts = draw_parts(split(table, cfg.split), draw, MAX_ROWS if overrides else len(table))
    start = time.process_time()
    bundle = build(BuildSettings.from_config(cfg), table, parts, run_id="none")[0]
    seconds = time.process_time() - start
    predicted, lower, upper = bundle.predict_interval(table.matrix[parts.test], COVERAGE)
    actual = table.target[parts.test]
    inside, by_prediction = (lower <= actual) & (actual <= upper), np.argsort(predicted, kind="stable")
    worst = min(inside[part].mean() for part in np.array_split(by_prediction, N_PARTS))
    return np.array([interval_score(lower, upper, actual), inside.mean(), worst, (upper - lower).mean(), seconds])


def draw_parts(parts: Split, draw: int, max_rows: int) -> Split:
    """Divide training and validation rows anew: 64 % to fit, 16 % to validate, 20 % to score."""
    rows = np.random.default_rng(draw).permutation(np.concatenate([parts.train, parts.valid]))[:max_rows]
    first_valid, first_scored = int(0.64 * len(rows)), int(0.8 * len(rows))
    fitted, validated, scored = rows[:first_valid], rows[first_valid:first_scored], rows[first_scored:]
    return Split(np.sort(fitted), np.sort(validated), np.sort(scored), parts.units)


def interval_score(lower: Vector, upper: Vector, actual: Vector) -> float:
    """Return the mean interval score, in the target's unit; lower is better.

    Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", JASA 102 (2007) 359-378, equation 43.
    """
    outside = np.maximum(lower - actual, 0) + np.maximum(actual - upper, 0)
    return float(np.mean(upper - lower + 2 / (1 - COVERAGE) * outside))
