"""Coverage of intervals while rows drift: as they were calibrated, and adapted to feedback (serve.adaptive_intervals)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from hydra import compose, initialize_config_dir

from housing.bundle.adaptation import Adaptation
from housing.bundle.bundle import Bundle
from housing.bundle.conformal import Interval
from housing.core.config import CONF
from housing.data.split import split
from housing.data.table import load
from housing.feedback.interval_adaptation import create_tracker
from housing.schema.column import Matrix, Vector
from housing.training.build import BuildSettings, build

N_ROWS, BLOCK = 10_000, 50  # workers read an adaptation after each block
COVERAGES = (0.5, 0.8, 0.9, 0.95)
DELAYS = (0, 1000)  # rows until feedback arrives
SHOCK_ROW = 5_000
RECOVERY_ROWS, RECOVERED = 250, 0.03  # blocks of rows whose coverage of 90 % intervals must be so near again
TILT = 3.0  # of the exponent by which the first and the last rows prefer opposite ends of a column


@dataclass(frozen=True)
class Stream:
    """Rows in order, with predictions, inputs of the intervals and drifting targets."""

    matrix: Matrix
    columns: Matrix
    predictions: Vector
    actual: Vector


def print_adaptive_intervals() -> None:
    """Print the coverage over drifting test rows of California, for feedback at once and late."""
    with initialize_config_dir(str(CONF), version_base=None):
        cfg = compose("train", [])
    table = load(cfg.data)
    parts = split(table, cfg.split)
    bundle = build(BuildSettings.from_config(cfg), table, parts, run_id="none")[0]
    test = table.take(parts.test)
    asked = " | ".join(f"{coverage:.0%}" for coverage in COVERAGES)
    print(f"| drift | feedback | {asked} | width | rows to recover |\n|---|---|{'---:|' * (len(COVERAGES) + 2)}")
    for name, stream, is_shock in _streams(bundle, test.matrix[:], test.target):
        _print_row(name, "none (fixed)", *_replay(bundle, stream, None), is_shock)
        for delay in DELAYS:
            _print_row(name, f"{delay:,} rows late" if delay else "at once", *_replay(bundle, stream, delay), is_shock)


def _streams(bundle: Bundle, matrix: Matrix, actual: Vector) -> Iterator[tuple[str, Stream, bool]]:
    """Yield drifts, and whether each is a shock."""
    progress = np.arange(N_ROWS) / N_ROWS
    predicted = bundle.predict(matrix)
    chosen = np.random.default_rng(0).integers(len(matrix), size=N_ROWS)
    drifts: dict[str, Callable[[Vector, Vector], Vector]] = {
        "none": lambda target, _: target,
        "errors grow to twice their size": lambda target, center: center + (target - center) * (1 + progress),
        "prices rise by 30 %": lambda target, _: target * (1 + 0.3 * progress),
        "prices rise and fall by 15 %": lambda target, _: target * (1 + 0.15 * np.sin(2 * np.pi * progress)),
        "prices rise by 25 % at once": lambda target, _: target * np.where(np.arange(N_ROWS) < SHOCK_ROW, 1, 1.25),
    }
    for name, drift in drifts.items():
        yield name, _stream(bundle, matrix[chosen], drift(actual[chosen], predicted[chosen])), "at once" in name
    moving = _moving_rows(predicted)
    yield "from cheap to expensive districts", _stream(bundle, matrix[moving], actual[moving]), False


def _moving_rows(column: Vector) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Return rows that first prefer low values of a column, and high ones at the end."""
    rng = np.random.default_rng(1)
    ranks = np.argsort(np.argsort(column)) / (len(column) - 1) * 2 - 1
    parts = []
    for start in range(0, N_ROWS, BLOCK):
        weight = np.exp(TILT * (2 * start / N_ROWS - 1) * ranks)
        parts.append(rng.choice(len(column), BLOCK, p=weight / weight.sum()))
    return np.concatenate(parts)


def _stream(bundle: Bundle, matrix: Matrix, actual: Vector) -> Stream:
    target = bundle.schema.target
    predictions, columns = bundle.ensemble.predict_with_columns(matrix)
    return Stream(matrix, columns, predictions, np.clip(actual, target.min, target.max))


def _replay(bundle: Bundle, stream: Stream, delay: int | None) -> tuple[Matrix, float]:
    """Return which rows are inside intervals of each coverage, shape (coverages, rows), and the mean width at 90 %."""
    assert bundle.interval is not None
    tracker = create_tracker(bundle)
    residuals = bundle.score_residuals(stream.matrix, stream.actual, tracker.levels.tolist())
    inside, widths = [], []
    for start in range(0, N_ROWS, BLOCK):
        if delay is not None:
            known = slice(max(start - BLOCK - delay, 0), max(start - delay, 0))
            tracker.learn(residuals[known], np.arange(N_ROWS, dtype=np.float64)[known])
            tracker.publish(start)
        adaptation = Adaptation("none", tracker.n_labels, tracker.levels, tracker.used_levels, tracker.offsets)
        bounds = [_bounds(bundle, bundle.interval.adapted(adaptation), stream, start, coverage) for coverage in COVERAGES]
        actual = stream.actual[start : start + BLOCK]
        inside.append([(lower <= actual) & (actual <= upper) for lower, upper in bounds])
        lower, upper = bounds[COVERAGES.index(0.9)]
        widths.append(float((upper - lower).mean()))
    return np.concatenate(inside, axis=1), float(np.mean(widths))


def _bounds(bundle: Bundle, interval: Interval, stream: Stream, start: int, coverage: float) -> tuple[Vector, Vector]:
    rows = slice(start, start + BLOCK)
    return interval.bounds(bundle.schema, stream.columns[rows], stream.predictions[rows], coverage)


def _print_row(name: str, feedback: str, inside: Matrix, width: float, is_shock: bool) -> None:
    cells = [f"{share:.1%}" for share in inside.mean(axis=1)]
    recovery = _rows_to_recover(inside[COVERAGES.index(0.9)]) if is_shock else ""
    print(f"| {name} | {feedback} | {' | '.join(cells)} | {width:.2f} | {recovery} |", flush=True)


def _rows_to_recover(inside: Vector) -> str:
    """Return after how many rows a window of rows has nearly the coverage of 90 % again."""
    for start in range(SHOCK_ROW, N_ROWS - RECOVERY_ROWS, BLOCK):
        if inside[start : start + RECOVERY_ROWS].mean() >= 0.9 - RECOVERED:
            return f"{start - SHOCK_ROW:,}"
    return "never"
