"""Paired test of two models on the same rows: which one has the lower error, and with what confidence.

A claim needs three tests. The sign-flip test is exact for equal models at every number of rows (Fisher, "The Design of
Experiments", 1935). Student's t interval holds if the differences are symmetric, even with heavy tails. Hall's interval corrects
for skewness ("On the Removal of Skewness by Transformation", Journal of the Royal Statistical Society B 54 (1992) 221-228). It
is computed with rows added that contradict the claim, because a sample rarely shows all of a heavy tail.

All three need independent values. If rows depend on each other, as those of a customer do, the values are sums over units (here
customers), and each "row" above is a unit.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from housing.data.units import Units
from housing.evaluation.bootstrap import compute_loss, compute_score
from housing.schema.column import Matrix, Vector

BATCH_SIZE = 4_000_000  # random signs in memory at once: 32 MB
MIN_UNITS = 6  # 2^-6 is the first p-value of the sign-flip test below 2.5 %
# Chosen by simulation: scripts/bench gate. The unit of both is the number of rows that a sample can lack by chance.
CONTRADICTING_ROWS = 2.5
FEW_ROWS = 60  # up to this number of test rows, a contradicting row has at least half of the size of the highest difference
MIN_SKEWNESS = 1e-9  # without skewness the correction would divide by zero
POWER = 0.8  # probability with which `units_needed` shows the measured difference
ROWS = "test rows"  # the units, if each row is one


@dataclass(frozen=True)
class PairedDifference:
    """Challenger score minus champion score on the same rows. Negative means that the challenger is better.

    Attributes
    ----------
    difference
        The difference of the two scores, in the target's unit.
    lower, upper
        One-sided confidence bounds of the difference; None if the units are too few for a bound.
    units, unit_name
        The number of independent values, and what they are: the rows, or for example the locations of the rows.
    half_units
        The smallest number of units that carry half of the difference; 0 without a difference.
    is_fragile
        Whether the difference is significant only as long as no further unit contradicts it.
    units_needed
        Units that a significant result would need if the difference stays as measured; None if unknown.
    """

    rows: int
    challenger_score: float
    champion_score: float
    difference: float
    lower: float | None
    upper: float | None
    units: int
    unit_name: str = ROWS
    half_units: int = 0
    is_fragile: bool = False
    units_needed: int | None = None

    @property
    def is_better(self) -> bool:
        """Whether the challenger is significantly better."""
        return self.upper is not None and self.upper < 0

    @property
    def is_worse(self) -> bool:
        """Whether the challenger is significantly worse."""
        return self.lower is not None and self.lower > 0


@dataclass(frozen=True)
class ComparisonSettings:
    """Settings of a paired test.

    Attributes
    ----------
    confidence
        One-sided confidence of each bound.
    min_units
        Fewer units have no bounds.
    """

    metric: str
    confidence: float
    n_resamples: int
    seed: int
    min_units: int = MIN_UNITS


def paired_test(
    settings: ComparisonSettings, challenger_error: Vector, champion_error: Vector, units: Units | None = None
) -> PairedDifference:
    """Compare the errors of two models on the same rows by their RMSE or MAE.

    `units` are those of the rows. None: each row is a unit.
    """
    losses = compute_loss(challenger_error, settings.metric) - compute_loss(champion_error, settings.metric)
    losses = losses if units is None else sum_by_unit(losses, units)
    challenger_score = compute_score(challenger_error, settings.metric)
    champion_score = compute_score(champion_error, settings.metric)
    lower, upper, is_fragile = None, None, False
    if len(losses) >= max(settings.min_units, MIN_UNITS):
        bounds = -_upper_bound(settings, -losses), _upper_bound(settings, losses)
        lower, upper = (_to_score_difference(bound, champion_score, settings.metric) for bound in bounds)
        is_fragile = lower <= 0 <= upper and _is_significant_as_sampled(losses, settings.confidence)
    return PairedDifference(
        len(challenger_error),
        challenger_score,
        champion_score,
        challenger_score - champion_score,
        lower,
        upper,
        len(losses),
        ROWS if units is None else units.name,
        count_half_units(losses),
        is_fragile,
        _units_needed(settings, losses),
    )


def sum_by_unit(losses: Vector, units: Units) -> Vector:
    """Return a loss of each unit: the sum over its rows, scaled so that the mean over units is the mean over rows."""
    sums = units.sum(losses)
    return np.asarray(sums * (len(sums) / len(losses)))


def _is_significant_as_sampled(losses: Vector, confidence: float) -> bool:
    """Return whether Student's interval, without contradicting rows, excludes 0."""
    return any(bool(student_bounds(values[None], confidence)[0] < 0) for values in (losses, -losses))


def _upper_bound(settings: ComparisonSettings, losses: Vector) -> float:
    """Return the upper bound of the mean. It is negative only if the sign-flip test agrees."""
    if not losses.any():
        return 0.0
    bound = float(mean_upper_bounds(losses[None], settings.confidence)[0])
    if bound < 0 and sign_flip_p_value(losses, settings.n_resamples, settings.seed) > 1 - settings.confidence:
        return 0.0
    return bound


def mean_upper_bounds(samples: Matrix, confidence: float) -> Vector:
    """Return the upper confidence bound of each sample's mean, shape (samples,). `samples` has the shape (samples, rows)."""
    contradicted = np.concatenate([samples, _contradicting_rows(samples, confidence)], axis=1)
    return np.maximum(student_bounds(samples, confidence), skewness_corrected_bounds(contradicted, confidence))


def _contradicting_rows(samples: Matrix, confidence: float) -> Matrix:
    """Return equal rows that contradict a negative mean, shape (samples, contradicting rows).

    Rows of the share `n_unseen` / rows are absent from a sample with the probability 1 - `confidence`. The size of the
    contradicting rows is the length by which the positive tail exceeds the negative one, and at least half of the positive
    tail. For more than a few test rows this minimum shrinks, because they show more of the tails.
    """
    n_unseen = math.log(1 / (1 - confidence))
    highest, lowest = np.maximum(samples.max(axis=1), 0.0), np.minimum(samples.min(axis=1), 0.0)
    least = highest / 2 * min(1.0, FEW_ROWS * n_unseen / samples.shape[1])
    return np.repeat(np.maximum(highest + lowest, least)[:, None], round(CONTRADICTING_ROWS * n_unseen), axis=1)


def student_bounds(samples: Matrix, confidence: float) -> Vector:
    """Return Student's upper bounds of the means."""
    return np.asarray(samples.mean(axis=1) - _student_quantile(samples, confidence) * _standard_error(samples))


def skewness_corrected_bounds(samples: Matrix, confidence: float) -> Vector:
    """Return Hall's upper bounds of the means, with the quantile of Student's t distribution."""
    n_rows, mean, quantile = samples.shape[1], samples.mean(axis=1), _student_quantile(samples, confidence)
    spread = samples.std(axis=1)
    standardized = (samples - mean[:, None]) / np.where(spread > 0, spread, 1.0)[:, None]
    skewness = (standardized * standardized * standardized).mean(axis=1) / math.sqrt(n_rows)
    skewness = np.where(np.abs(skewness) < MIN_SKEWNESS, MIN_SKEWNESS, skewness)
    corrected = (np.cbrt(1 + skewness * (quantile - skewness / 6)) - 1) * 3 / skewness
    return np.asarray(mean - corrected * _standard_error(samples))


def _standard_error(samples: Matrix) -> Vector:
    return np.asarray(samples.std(axis=1) / math.sqrt(samples.shape[1] - 1))


def _student_quantile(samples: Matrix, confidence: float) -> float:
    from scipy.stats import t  # pylint: disable=import-outside-toplevel  # takes a second to import

    return float(t.ppf(1 - confidence, samples.shape[1] - 1))


def sign_flip_p_value(values: Vector, n_resamples: int, seed: int) -> float:
    """Return the share of random sign flips with a mean as low as that of the values; the values themselves are one of them."""
    random, n_rows = np.random.default_rng(seed), len(values)
    observed, as_low = float(values.sum()), 1
    tolerance = 1e-12 * float(np.abs(values).sum())
    batch = max(1, BATCH_SIZE // n_rows)
    for start in range(0, n_resamples, batch):
        signs = random.integers(2, size=(min(batch, n_resamples - start), n_rows), dtype=np.int8)
        as_low += int((2 * (signs @ values) - values.sum() <= observed + tolerance).sum())
    return as_low / (n_resamples + 1)


def count_half_units(losses: Vector) -> int:
    """Return the smallest number of units whose differences add up to half of the total difference."""
    total = float(losses.sum())
    if not total:
        return 0
    largest_first = np.sort(np.sign(total) * losses)[::-1]
    return int(np.argmax(np.cumsum(largest_first) >= abs(total) / 2)) + 1


def _units_needed(settings: ComparisonSettings, losses: Vector) -> int | None:
    """Return the units with which a difference of this size is significant with the probability `POWER`."""
    mean, spread = float(losses.mean()), float(losses.std())
    if not mean or not spread:
        return None
    quantiles = NormalDist().inv_cdf(settings.confidence) + NormalDist().inv_cdf(POWER)
    return max(settings.min_units, math.ceil((quantiles * spread / mean) ** 2))


def _to_score_difference(bound: float, champion_score: float, metric: str) -> float:
    """Return the difference of the scores that belongs to a difference of the mean losses."""
    if metric != "rmse":
        return bound
    return math.sqrt(max(champion_score**2 + bound, 0.0)) - champion_score
