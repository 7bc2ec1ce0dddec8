"""Sequential paired test of two models: it may be looked at after every true value, and stops at the first claim.

A claim that the mean of loss differences is above 0 needs both of these at the same time:

- An e-process of symmetric differences (Ramdas, Ruf, Larsson and Koolen, "Admissible anytime-valid sequential inference must rely
  on nonnegative martingales", 2020; the truncated bets are tanh). If two models are equal, the sign of each difference is a fair
  coin. The wealth of a gambler who bets on the signs then exceeds 1 / alpha, ever, with a probability of at most alpha (Ville's
  inequality), however heavy the tails are.
- An asymptotic confidence sequence of the mean (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit
  theory and asymptotic confidence sequences", Annals of Statistics 52, 2024), for differences that are not symmetric. It can be
  computed with rows added that contradict the claim, as in the gate's test.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from housing.evaluation.bootstrap import compute_loss
from housing.evaluation.paired_test import CONTRADICTING_ROWS, FEW_ROWS
from housing.schema.column import Matrix, Vector

BETS = (0.05, 0.1, 0.2, 0.4)  # of the e-process, as shares of the root mean square difference: the effects that it looks for
TIGHTEST_AT = 250  # true values at which the confidence sequence is as narrow as it can be
Arrange = Callable[[Matrix], Matrix]
WORSE, NOT_WORSE, BETTER, UNDECIDED = "worse", "not worse", "better", "undecided"
MIN_VARIANCE = 1e-300  # of equal differences, which would divide by zero


@dataclass(frozen=True)
class SequentialRules:
    """When a challenger that answers requests beside the champion is taken back, and when it takes over.

    Attributes
    ----------
    margin
        The share by which the challenger's error may exceed the champion's for it to be called not worse.
    take_back_alpha
        The probability with which an equal challenger is ever taken back.
    take_over_alpha
        The probability with which a challenger whose error exceeds the champion's by the margin ever takes over.
    min_units
        Nothing is claimed with fewer independent values.
    """

    metric: str
    margin: float
    take_back_alpha: float
    take_over_alpha: float
    min_units: int


Claim = Callable[[SequentialRules, Matrix, Matrix, Arrange], NDArray[np.bool_]]


@dataclass(frozen=True)
class SequentialResult:
    """The claim of a sequential test.

    Attributes
    ----------
    verdict
        WORSE, NOT_WORSE, BETTER, or UNDECIDED.
    after, units
        The number of independent values after which the claim was first made (None if undecided), and that of all of them.
    """

    verdict: str
    after: int | None
    units: int


def judge_errors(
    rules: SequentialRules, challenger_error: Vector, champion_error: Vector, units: NDArray[np.intp]
) -> SequentialResult:
    """Judge a challenger by its errors. `units` numbers the independent values by the order of their arrival, from 0."""
    n_units = int(units.max(initial=-1)) + 1

    def by_unit(losses: Matrix) -> Matrix:
        return np.bincount(units, losses, n_units).astype(np.float64)[None]  # without values, integers

    def first(claim: Claim) -> int | None:
        """Return the number of units after which a claim is first made."""
        claims = claim(rules, challenger_error, champion_error, by_unit)[0]
        return int(np.argmax(claims)) + 1 if claims.any() else None

    worse, not_worse = first(worse_claims), first(not_worse_claims)
    if worse is None and not_worse is None:
        return SequentialResult(UNDECIDED, None, n_units)
    if not_worse is None or (worse is not None and worse <= not_worse):
        return SequentialResult(WORSE, worse, n_units)
    return SequentialResult(NOT_WORSE if first(better_claims) is None else BETTER, not_worse, n_units)


def log_rate_evidence(events: int, trials: int, rate: float) -> float:
    """Return the logarithm of the e-value against a probability of an event of at most `rate`, after a number of trials.

    It is that of a uniform mixture over all higher probabilities (Robbins, "Statistical methods related to the law of the
    iterated logarithm", Annals of Mathematical Statistics 41, 1970), so that it may be looked at after every trial.
    """
    from scipy.stats import beta  # pylint: disable=import-outside-toplevel  # takes a second to import

    misses = trials - events
    tail = float(beta.sf(rate, events + 1, misses + 1))
    if tail <= 0.0:
        return -math.inf
    log_beta = math.lgamma(events + 1) + math.lgamma(misses + 1) - math.lgamma(trials + 2)
    return log_beta + math.log(tail) - math.log1p(-rate) - events * math.log(rate) - misses * math.log1p(-rate)


def worse_claims(
    rules: SequentialRules, challenger_error: Matrix, champion_error: Matrix, by_unit: Arrange = np.asarray
) -> NDArray[np.bool_]:
    """Return after which values the challenger is worse, shape (samples, values).

    Errors are in the order of arrival. `by_unit` turns losses of rows into those of independent values, shape (samples, values).
    """
    losses = by_unit(excess_losses(challenger_error, champion_error, rules.metric))
    return claims_above_zero(losses, rules.take_back_alpha, rules.min_units)


def not_worse_claims(
    rules: SequentialRules, challenger_error: Matrix, champion_error: Matrix, by_unit: Arrange = np.asarray
) -> NDArray[np.bool_]:
    """Return after which values the challenger is not worse by the margin, in the same way."""
    losses = by_unit(-excess_losses(challenger_error, champion_error, rules.metric, rules.margin))
    return claims_above_zero(losses, rules.take_over_alpha, rules.min_units, is_cautious=True)


def better_claims(
    rules: SequentialRules, challenger_error: Matrix, champion_error: Matrix, by_unit: Arrange = np.asarray
) -> NDArray[np.bool_]:
    """Return after which values the challenger is better, in the same way."""
    return not_worse_claims(replace(rules, margin=0.0), challenger_error, champion_error, by_unit)


def excess_losses(challenger_error: Matrix, champion_error: Matrix, metric: str, margin: float = 0.0) -> Matrix:
    """Return by how much the loss of each row exceeds the champion's, whose error is enlarged by the share `margin`.

    The mean is above 0 if the challenger's RMSE or MAE is more than 1 + `margin` times the champion's.
    """
    return compute_loss(challenger_error, metric) - compute_loss((1 + margin) * champion_error, metric)


def claims_above_zero(losses: Matrix, alpha: float, min_units: int, is_cautious: bool = False) -> NDArray[np.bool_]:
    """Return after which values a mean above 0 can be claimed, shape (samples, values).

    Parameters
    ----------
    losses
        Excess losses in the order of their arrival, shape (samples, values).
    alpha
        The probability with which a claim is ever made about equal models.
    min_units
        No claim is made with fewer values.
    is_cautious
        Whether values that contradict the claim are added, because a sample rarely shows all of a heavy tail.
    """
    claims = (log_evidence(losses) >= math.log(1 / alpha)) & (_lower_bounds(losses, alpha, is_cautious) > 0)
    claims[:, : min_units - 1] = False
    return claims


def log_evidence(losses: Matrix) -> Matrix:
    """Return the logarithm of the e-process against symmetric differences, shape (samples, values).

    The scale of the bets may depend on the sizes of all differences so far: of the current one, only the sign is uncertain.
    """
    numbers = np.arange(1, losses.shape[1] + 1)
    scale = np.sqrt(np.maximum(np.cumsum(np.square(losses), axis=1) / numbers, MIN_VARIANCE))
    standardized = losses / scale
    wealth = np.full(losses.shape, -np.inf)
    for bet in BETS:
        stakes = np.tanh(bet * standardized)
        wealth = np.logaddexp(wealth, np.cumsum(np.log1p(np.maximum(stakes, -1 + 1e-12)), axis=1))
    return wealth - math.log(len(BETS))


def _lower_bounds(losses: Matrix, alpha: float, is_cautious: bool) -> Matrix:
    """Return the lower ends of the confidence sequence of the mean, shape (samples, values)."""
    numbers = np.arange(1, losses.shape[1] + 1, dtype=np.float64)
    sums, squares = np.cumsum(losses, axis=1), np.cumsum(np.square(losses), axis=1)
    if is_cautious:
        n_unseen = math.log(1 / alpha)
        n_rows = round(CONTRADICTING_ROWS * n_unseen)
        rows = _contradicting_values(losses, numbers, n_unseen)
        sums, squares, numbers = sums - n_rows * rows, squares + n_rows * np.square(rows), numbers + n_rows
    mean = sums / numbers
    spread = np.sqrt(np.maximum(squares / numbers - np.square(mean), MIN_VARIANCE))
    level = math.log(1 / (2 * alpha))
    intrinsic = numbers * (2 * level + math.log1p(2 * level)) / TIGHTEST_AT
    radius = np.sqrt(2 * (intrinsic + 1) / (numbers * intrinsic) * np.log1p(np.sqrt(intrinsic + 1) / (2 * alpha)))
    return np.asarray(mean - spread * radius)


def _contradicting_values(losses: Matrix, numbers: Vector, n_unseen: float) -> Matrix:
    """Return the size of the values that contradict a mean above 0, after each value. See `paired_test`."""
    lowest = np.maximum(np.maximum.accumulate(-losses, axis=1), 0.0)
    highest = np.maximum(np.maximum.accumulate(losses, axis=1), 0.0)
    return np.asarray(np.maximum(lowest - highest, lowest / 2 * np.minimum(1.0, FEW_ROWS * n_unseen / numbers)))
