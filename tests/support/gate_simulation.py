"""Error rates of the gate's paired test on simulated errors and on development rows of the real table: scripts/bench gate.

A claim is false if both models have the same expected loss. Rates are those of the bounds alone. The sign-flip test, which a
verdict needs as well, can only lower them.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from housing.data.units import Units
from housing.evaluation.bootstrap import compute_loss
from housing.evaluation.paired_test import mean_upper_bounds, skewness_corrected_bounds, student_bounds, sum_by_unit
from housing.promotion.gate import binomial_interval

Errors = NDArray[np.float64]
Shape = tuple[int, int]  # samples, test rows
Scenario = Callable[[np.random.Generator, Shape], tuple[Errors, Errors]]  # errors of challenger and champion
Bounds = Callable[[Errors, float], Errors]  # upper bounds of the mean loss difference, from samples and confidence
CONFIDENCE = 0.975
BATCH_SIZE = 2_000_000  # errors in memory at once: 16 MB
SIZES = (8, 20, 50, 100, 200, 300, 500, 1000, 2000, 5000)
N_SLICES = 20
N_RESAMPLES = 500


def equal(draw: Callable[[np.random.Generator, Shape], Errors]) -> Scenario:
    """Return two equal models whose errors are drawn independently."""
    return lambda random, shape: (draw(random, shape), draw(random, shape))


def equal_scaled(
    random: np.random.Generator, shape: Shape, scale: Callable[[np.random.Generator, Shape], Errors]
) -> tuple[Errors, Errors]:
    """Return two equal models whose errors share the scale of their row."""
    scales = scale(random, shape)
    return scales * random.normal(size=shape), scales * random.normal(size=shape)


def rare_scale(random: np.random.Generator, shape: Shape) -> Errors:
    """Return scales that are 30 in one of 200 rows, so that few rows carry the difference."""
    return np.where(random.random(shape) < 0.005, 30.0, 1.0)


def lognormal_scale(random: np.random.Generator, shape: Shape) -> Errors:
    """Return scales with a heavy tail."""
    return np.asarray(np.exp(1.5 * random.normal(size=shape)))


def lognormal_losses(random: np.random.Generator, shape: Shape, sigma: float) -> tuple[Errors, Errors]:
    """Return a challenger of lognormal squared errors, and a champion whose errors all have the same size."""
    return np.exp(sigma * random.normal(size=shape) / 2), np.full(shape, np.exp(sigma**2 / 4))


def student_errors(random: np.random.Generator, shape: Shape, degrees: float) -> tuple[Errors, Errors]:
    """Return a challenger of heavier tails, with the variance of the normal champion."""
    return random.standard_t(degrees, shape) * np.sqrt(1 - 2 / degrees), random.normal(size=shape)


def spread_errors(random: np.random.Generator, shape: Shape) -> tuple[Errors, Errors]:
    """Return the same errors for both models, but those of the challenger are stretched or shrunk at random."""
    champion = random.normal(size=shape)
    return champion * np.sqrt(3 / random.chisquare(5, shape)), champion


def rare_errors(random: np.random.Generator, shape: Shape, share: float) -> tuple[Errors, Errors]:
    """Return a challenger with a 10 % lower squared error, except for a share of rows in which it is much larger."""
    champion, is_rare = random.normal(size=shape), random.random(shape) < share
    correlated = (champion + 0.3 * random.normal(size=shape)) / np.sqrt(1.09)
    return np.where(is_rare, np.sqrt(0.9 + 0.1 / share), np.sqrt(0.9)) * correlated, champion


def laplace_errors(random: np.random.Generator, shape: Shape) -> tuple[Errors, Errors]:
    """Return a challenger of heavier tails, with the mean absolute error of the normal champion."""
    return random.laplace(size=shape) * np.sqrt(2 / np.pi), random.normal(size=shape)


@dataclass(frozen=True)
class Customers:
    """Rows of customers, whose differences of losses share a part that is their customer's. Both models are equal.

    Attributes
    ----------
    rows
        Mean number of rows of a customer.
    correlation
        Correlation of the differences of two rows of a customer.
    is_uneven
        Whether a few customers have most of the rows (geometric sizes) instead of all having as many.
    is_skewed
        Whether the shared part has a lognormal distribution instead of a normal one.
    """

    rows: int
    correlation: float
    is_uneven: bool = False
    is_skewed: bool = False

    def draw(self, random: np.random.Generator, customers: int) -> tuple[Errors, NDArray[np.intp]]:
        """Return the difference of losses, and the customer, of each row."""
        sizes = random.geometric(1 / self.rows, customers) if self.is_uneven else np.full(customers, self.rows)
        of_row = np.repeat(np.arange(customers), sizes)
        shared = random.normal(size=customers)
        if self.is_skewed:  # the mean of a lognormal is exp(1/2), its variance e (e - 1)
            shared = (np.exp(shared) - np.exp(0.5)) / np.sqrt(math.e * (math.e - 1))
        own = random.normal(size=len(of_row))
        return np.sqrt(self.correlation) * shared[of_row] + np.sqrt(1 - self.correlation) * own, of_row


CUSTOMERS: Mapping[str, Customers] = {
    "5 rows each, correlation 0": Customers(5, 0.0),
    "5 rows each, correlation 0.2": Customers(5, 0.2),
    "5 rows each, correlation 0.8": Customers(5, 0.8),
    "20 rows each, correlation 0.2": Customers(20, 0.2),
    "20 rows each, correlation 0.8": Customers(20, 0.8),
    "1 to 100 rows, correlation 0.2": Customers(20, 0.2, is_uneven=True),
    "1 to 100 rows, correlation 0.8": Customers(20, 0.8, is_uneven=True),
    "20 rows each, correlation 0.5, skewed": Customers(20, 0.5, is_skewed=True),
    "1 to 100 rows, correlation 0.5, skewed": Customers(20, 0.5, is_uneven=True, is_skewed=True),
}


SIMULATED: Mapping[str, Scenario] = {
    "equal: normal": equal(lambda random, shape: random.normal(size=shape)),
    "equal: Student t, 2.5 df": equal(lambda random, shape: random.standard_t(2.5, shape)),
    "equal: Pareto, index 2.2": equal(lambda random, shape: random.pareto(2.2, shape)),
    "equal: lognormal scale": partial(equal_scaled, scale=lognormal_scale),
    "equal: few dominating rows": partial(equal_scaled, scale=rare_scale),
    "lognormal losses, sigma 0.5": partial(lognormal_losses, sigma=0.5),
    "lognormal losses, sigma 1": partial(lognormal_losses, sigma=1.0),
    "lognormal losses, sigma 1.5": partial(lognormal_losses, sigma=1.5),
    "Student t, 5 df": partial(student_errors, degrees=5),
    "Student t, 4 df": partial(student_errors, degrees=4),
    "errors stretched at random": spread_errors,
    "large errors in 5 % of rows": partial(rare_errors, share=0.05),
}
LIMITS: Mapping[str, Scenario] = {
    "Student t, 3 df": partial(student_errors, degrees=3),
    "large errors in 1 % of rows": partial(rare_errors, share=0.01),
    "large errors in 0.1 % of rows": partial(rare_errors, share=0.001),
}
SIMULATED_MAE: Mapping[str, Scenario] = {
    "equal: normal": SIMULATED["equal: normal"],
    "equal: Pareto, index 2.2": SIMULATED["equal: Pareto, index 2.2"],
    "Laplace": laplace_errors,
}


def swapped(challenger: Errors, champion: Errors, improvement: float = 0.0) -> Scenario:
    """Return rows of two models whose errors are swapped at random, so that they are equal; then improve the challenger."""

    def draw(random: np.random.Generator, shape: Shape) -> tuple[Errors, Errors]:
        rows, swap = random.integers(len(champion), size=shape), random.random(shape) < 0.5
        first, second = challenger[rows], champion[rows]
        return (1 - improvement) * np.where(swap, second, first), np.where(swap, first, second)

    return draw


def rescaled(challenger: Errors, champion: Errors, metric: str) -> Scenario:
    """Return rows of two models after the errors of the challenger are scaled to the champion's score over all rows."""
    ratio = compute_loss(champion, metric).mean() / compute_loss(challenger, metric).mean()
    scaled = challenger * (np.sqrt(ratio) if metric == "rmse" else ratio)

    def draw(random: np.random.Generator, shape: Shape) -> tuple[Errors, Errors]:
        rows = random.integers(len(champion), size=shape)
        return scaled[rows], champion[rows]

    return draw


@dataclass(frozen=True)
class Claims:
    """How often a challenger was called better, and worse, in a number of samples."""

    samples: int
    better: int
    worse: int

    def most(self) -> int:
        """Return the count of the more frequent claim."""
        return max(self.better, self.worse)

    @property
    def false_rate(self) -> str:
        """The rate of the more frequent claim in percent, with its 95 % interval (Clopper and Pearson)."""
        lower, upper = (100 * end for end in binomial_interval(self.most(), self.samples, CONFIDENCE))
        return f"{100 * self.most() / self.samples:.1f} ({lower:.1f}-{upper:.1f})"


def count_claims(
    scenario: Scenario, rows: int, samples: int, metric: str = "rmse", bounds: Bounds = mean_upper_bounds, slices: int = 1
) -> Claims:
    """Count the samples with a claim. With slices of `rows` rows each, one slice is enough (Bonferroni correction)."""
    random, counts = np.random.default_rng(rows), np.zeros(2, int)
    confidence, batch = 1 - (1 - CONFIDENCE) / slices, max(1, BATCH_SIZE // (rows * slices))
    for start in range(0, samples, batch):
        size = min(batch, samples - start)
        challenger, champion = scenario(random, (size * slices, rows))
        losses = compute_loss(challenger, metric) - compute_loss(champion, metric)
        claims = (bounds(losses, confidence) < 0, bounds(-losses, confidence) < 0)
        counts += [int(claim.reshape(size, slices).any(axis=1).sum()) for claim in claims]
    return Claims(samples, int(counts[0]), int(counts[1]))


def count_claims_on_customers(scenario: Customers, customers: int, samples: int, by_customer: bool) -> Claims:
    """Count the samples with a claim, with customers as the units of the test, or with rows as if they were independent."""
    random, counts = np.random.default_rng(customers), np.zeros(2, int)
    for _ in range(samples):
        losses, customer = scenario.draw(random, customers)
        losses = sum_by_unit(losses, Units("customers", customer)) if by_customer else losses
        counts += [int(mean_upper_bounds(side[None], CONFIDENCE)[0] < 0) for side in (losses, -losses)]
    return Claims(samples, int(counts[0]), int(counts[1]))


def print_customers(samples: int = 4000) -> None:
    """Print false claims on rows of repeating customers, with rows and with customers as the units of the test."""
    for by_customer, unit in ((False, "rows"), (True, "customers")):

        def rate(name: str, customers: int, by_customer: bool = by_customer) -> str:
            return count_claims_on_customers(CUSTOMERS[name], customers, samples, by_customer).false_rate

        print_table(f"false claims by number of customers, units are {unit}, %", (20, 50, 100, 200, 500, 1000), CUSTOMERS, rate)


def previous_bounds(samples: Errors, confidence: float) -> Errors:
    """Return the bounds that the gate used before: Hall's, with one row as extreme as the most extreme one."""
    extreme = np.abs(samples).max(axis=1, keepdims=True)
    return skewness_corrected_bounds(np.concatenate([samples, extreme], axis=1), confidence)


def empirical_bernstein_bounds(samples: Errors, confidence: float) -> Errors:
    """Return the bounds of Maurer and Pontil (2009), with the sample's range as the range of the differences."""
    rows, level = samples.shape[1], np.log(2 / (1 - confidence))
    linear = 7 * np.ptp(samples, axis=1) * level / (3 * (rows - 1))
    return np.asarray(samples.mean(axis=1) + np.sqrt(2 * samples.var(axis=1) * level / rows) + linear)


def _resample(samples: Errors) -> tuple[Errors, Errors]:
    """Return means and spreads of resampled rows, shape (resamples, samples). All samples share the resampled rows."""
    rows = samples.shape[1]
    weights = np.random.default_rng(rows).multinomial(rows, np.full(rows, 1 / rows), size=N_RESAMPLES) / rows
    means = weights @ samples.T
    return means, np.sqrt(np.maximum(weights @ np.square(samples).T - np.square(means), 1e-300))


def percentile_bounds(samples: Errors, confidence: float) -> Errors:
    """Return the bounds of the percentile bootstrap, which judged first."""
    return np.asarray(np.quantile(_resample(samples)[0], confidence, axis=0))


def bootstrap_t_bounds(samples: Errors, confidence: float) -> Errors:
    """Return the bounds of the studentized bootstrap (Efron and Tibshirani, 1993)."""
    means, spreads = _resample(samples)
    centers = samples.mean(axis=1)
    quantiles = np.quantile((means - centers) / spreads, 1 - confidence, axis=0)
    return np.asarray(centers - quantiles * samples.std(axis=1))


CANDIDATES: Mapping[str, Bounds] = {
    "percentile bootstrap": percentile_bounds,
    "Student's t": student_bounds,
    "Hall": skewness_corrected_bounds,
    "bootstrap-t": bootstrap_t_bounds,
    "Hall, one more row": previous_bounds,
    "empirical Bernstein": empirical_bernstein_bounds,
    "**Student and Hall, contradicting rows**": mean_upper_bounds,
}


def print_table(title: str, sizes: Sequence[int], names: Iterable[str], cell: Callable[[str, int], str]) -> None:
    """Print a Markdown table with a line for each name and a column for each size."""
    print(f"\n| {title} | {' | '.join(f'{size:,}' for size in sizes)} |\n|---|{'---:|' * len(sizes)}", flush=True)
    for name in names:
        print(f"| {name} | {' | '.join(cell(name, size) for size in sizes)} |", flush=True)


def print_error_rates(errors: Mapping[str, Errors], samples: int = 4000) -> None:
    """Print false and true claims by the number of rows. `errors` are those of real models on the same rows, by model."""
    swap = {"equal: California, another seed": swapped(errors["another seed"], errors["xgboost"])}
    rmse = {**SIMULATED, **swap, **_rescaled_models(errors, "rmse")}
    _print_false_claims("false claims by rmse", "rmse", rmse, samples)
    _print_false_claims("false claims by mae", "mae", {**SIMULATED_MAE, **swap, **_rescaled_models(errors, "mae")}, samples)
    _print_false_claims("rare and infinitely varying errors", "rmse", LIMITS, samples)
    print_table(
        f"false claims in any of {N_SLICES} slices, %",
        (50, 100, 250),
        rmse,
        lambda name, rows: count_claims(rmse[name], rows, samples // 2, slices=N_SLICES).false_rate,
    )
    print_customers(samples)
    _print_power(errors, samples // 4)
    _print_candidates(rmse, swapped(errors["another seed"], errors["xgboost"], 0.02), samples // 2)


def _rescaled_models(errors: Mapping[str, Errors], metric: str) -> dict[str, Scenario]:
    others = ("extra_trees", "linear", "mean")
    return {f"California, {name} and xgboost": rescaled(errors[name], errors["xgboost"], metric) for name in others}


def _print_false_claims(title: str, metric: str, scenarios: Mapping[str, Scenario], samples: int) -> None:
    def rate(name: str, rows: int) -> str:
        return count_claims(scenarios[name], rows, samples, metric).false_rate

    print_table(f"{title}, %", SIZES, scenarios, rate)


def _print_power(errors: Mapping[str, Errors], samples: int) -> None:
    """Print how often a challenger is called better whose errors are smaller by a ratio."""
    lines = {
        f"{kind}, {improvement:.0%}, {metric}": (swapped(errors[model], errors["xgboost"], improvement), metric)
        for kind, model in (("another seed", "another seed"), ("another kind", "extra_trees"))
        for improvement in (0.02, 0.05, 0.1)
        for metric in ("rmse", "mae")
    }

    def rate(name: str, rows: int) -> str:
        scenario, metric = lines[name]
        return f"{100 * count_claims(scenario, rows, samples, metric).better / samples:.0f}"

    print_table("true claims, %", (100, 200, 500, 1000, 2000, 4000), lines, rate)


def _print_candidates(scenarios: Mapping[str, Scenario], better: Scenario, samples: int) -> None:
    """Print the highest false rate of all scenarios, and the power, for each candidate."""

    def highest(name: str, rows: int) -> str:
        claims = (count_claims(scenario, rows, samples, bounds=CANDIDATES[name]) for scenario in scenarios.values())
        return max(claims, key=Claims.most).false_rate

    def power(name: str, rows: int) -> str:
        return f"{100 * count_claims(better, rows, samples, bounds=CANDIDATES[name]).better / samples:.0f}"

    print_table("highest rate of false claims, %", (100, 200, 500, 1000, 2000), CANDIDATES, highest)
    print_table("true claims, another seed, 2%, rmse", (500, 1000, 2000), CANDIDATES, power)
