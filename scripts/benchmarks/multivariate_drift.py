"""Multivariate drift on windows of the California table: false alarms, power, and processor time."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from housing.core.environment import PROJECT
from housing.monitoring.domain_classifier import Z_LIMIT, measure_multivariate_drift
from housing.schema.column import Column, Matrix, Vector
from scripts.benchmarks.processes import TABLE

SEED = 0
N_REFERENCE = N_WINDOW = 1000  # rows of the bundle's sample and of a window
N_NULL, N_SHIFTED = 1000, 10  # windows without drift, and of each kind of drift
WINDOWS_OF_SAMPLE = 50  # then another sample of training rows is drawn, as another model would have
PSI_LIMIT, N_BINS = 0.2, 10  # of the alert HousingColumnDrift

Change = Callable[[Matrix], Matrix]


@dataclass(frozen=True)
class Alarms:
    """Shares of windows that raise an alarm, the least AUC, and how often the named column is one of the two that are first."""

    multivariate: float
    single: float
    least_auc: float
    named: float
    milliseconds: float


def print_multivariate_drift() -> None:
    """Print false alarms, power and time of the domain classifier, beside the PSI of single columns."""
    if not TABLE.is_file():
        sys.exit(f"error: {TABLE.relative_to(PROJECT)} does not exist. Get it with: python -m housing.fetch")
    names = TABLE.read_text(encoding="utf-8").split("\n", 1)[0].split(",")[:-1]
    rows = np.loadtxt(TABLE, delimiter=",", skiprows=1, usecols=range(len(names)))
    columns = [Column(name, "float", "feature") for name in names]
    random = np.random.default_rng(SEED)
    null = _measure(columns, rows, random, lambda window: window, N_NULL, None)
    print(f"| {N_NULL} windows of {N_WINDOW} rows without drift | windows with an alarm | largest share allowed | ms a window |")
    print("|---|---:|---:|---:|")
    print(f"| domain classifier, {Z_LIMIT} standard deviations | {null.multivariate:.1%} | 1 % | {null.milliseconds:.0f} |")
    print(f"| PSI of any column above {PSI_LIMIT} | {null.single:.1%} | 1 % | |\n")
    print(f"| drift, {N_SHIFTED} windows each | classifier | least AUC | column is first or second | PSI of any column |")
    print("|---|---:|---:|---:|---:|")
    for index, name in enumerate(names):
        _print_row(f"{name} shuffled", _measure(columns, rows, random, _shuffled(index, random), N_SHIFTED, name))
    for index, name in enumerate(names):
        _print_row(f"{name} + 0.25 sd", _measure(columns, rows, random, _shifted(index, rows), N_SHIFTED, name))


def _print_row(name: str, alarms: Alarms) -> None:
    print(f"| {name} | {alarms.multivariate:.0%} | {alarms.least_auc:.2f} | {alarms.named:.0%} | {alarms.single:.0%} |")


def _shuffled(index: int, random: np.random.Generator) -> Change:
    """Return a change after which a column has the same values in other rows."""

    def change(window: Matrix) -> Matrix:
        window[:, index] = random.permutation(window[:, index])
        return window

    return change


def _shifted(index: int, rows: Matrix) -> Change:
    """Return a change that adds a quarter of its standard deviation to a column."""

    def change(window: Matrix) -> Matrix:
        window[:, index] += 0.25 * rows[:, index].std()
        return window

    return change


def _measure(
    columns: list[Column], rows: Matrix, random: np.random.Generator, change: Change, n_windows: int, drifting: str | None
) -> Alarms:
    """Measure windows that are drawn from rows that are not in the sample of training rows."""
    multivariate, single, named, areas, seconds = 0, 0, 0, list[float](), 0.0
    bins = [_bins(values) for values in rows.T]
    samples = [random.permutation(len(rows)) for _ in range(-(-n_windows // WINDOWS_OF_SAMPLE))]
    for number in range(n_windows):
        order = samples[number // WINDOWS_OF_SAMPLE]
        sample, others = rows[order[:N_REFERENCE]], rows[order[N_REFERENCE:]]
        window = change(others[random.choice(len(others), N_WINDOW, replace=False)])
        start = time.process_time()
        drift = measure_multivariate_drift(columns, sample, window, {})
        seconds += time.process_time() - start
        multivariate += drift.has_drifted
        single += any(_psi(*pair) > PSI_LIMIT for pair in zip(bins, window.T, strict=True))
        named += drifting in list(drift.columns)[:2]
        areas.append(drift.auc)
    return Alarms(multivariate / n_windows, single / n_windows, min(areas), named / n_windows, 1000 * seconds / n_windows)


def _bins(values: Vector) -> tuple[Vector, Vector]:
    """Return the deciles of a column as edges of bins, and the share of each bin."""
    edges = np.unique(np.quantile(values, np.arange(1, N_BINS) / N_BINS))
    return edges, _shares(edges, values)


def _shares(edges: Vector, values: Vector) -> Vector:
    return np.maximum(np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1) / len(values), 1e-4)


def _psi(bins: tuple[Vector, Vector], values: Vector) -> float:
    """Return the PSI as prometheus/rules.yml computes it."""
    edges, before = bins
    now = _shares(edges, values)
    return float(np.sum((now - before) * np.log(now / before)))
