"""The gate's rules: the comparison with the champion, the checks that veto, and the verdict that follows."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from housing.bundle.bundle import Bundle
from housing.core.errors import BundleError, ConfigError
from housing.data.units import Units
from housing.evaluation.bootstrap import compute_score, weigh_error
from housing.evaluation.paired_test import ROWS, ComparisonSettings, PairedDifference, paired_test
from housing.evaluation.slices import SliceMask, select
from housing.promotion.decision import HOLD, PROMOTE, REJECT, Check
from housing.promotion.settings import GateSettings
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema


def compare_overall(
    gate: GateSettings,
    challenger_error: Vector,
    champion_error: Vector,
    units: Units | None = None,
    weight: Vector | None = None,
) -> PairedDifference:
    """Compare the errors of challenger and champion on all rows that both accept. `units` and `weight` are those of the rows."""
    challenger_error, champion_error = (weigh_error(error, gate.metric, weight) for error in (challenger_error, champion_error))
    settings = ComparisonSettings(gate.metric, gate.confidence, gate.n_resamples, gate.seed, gate.min_rows)
    return paired_test(settings, challenger_error, champion_error, units)


def decide_verdict(difference: PairedDifference, checks: Sequence[Check]) -> str:
    """Return REJECT if the challenger is significantly worse or fails a check, PROMOTE if significantly better, else HOLD."""
    if difference.is_worse or not all(check.passed for check in checks):
        return REJECT
    return PROMOTE if difference.is_better else HOLD


def describe(gate: GateSettings, difference: PairedDifference, champion: str) -> str:
    """Describe the result of the comparison in one sentence."""
    scores = f"test {gate.metric} {difference.challenger_score:.4f} against {difference.champion_score:.4f} of {champion}"
    lower, upper = difference.lower, difference.upper
    if lower is None or upper is None:
        return (
            f"too few {difference.unit_name} to tell: {scores}; number of {difference.unit_name}: {difference.units:,},"
            f" expected at least {gate.min_rows:,} (gate.min_rows)"
        )
    confidence = f"{gate.confidence:.1%} confidence"
    if difference.is_better:
        return f"significantly better: {scores}, lower by at least {-upper:.4f} ({confidence})"
    if difference.is_worse:
        return f"significantly worse: {scores}, higher by at least {lower:.4f} ({confidence})"
    return (
        f"no significant difference: {scores}, a difference between {lower:+.4f} and {upper:+.4f} ({confidence} at either end)"
        f"{_missing_evidence(difference)}"
    )


def _missing_evidence(difference: PairedDifference) -> str:
    """Return what a significant difference would need, or "" if that is unknown."""
    if difference.is_fragile:
        return "; it would be significant, but few further rows like the most extreme ones could reverse it: use more test rows"
    if difference.units_needed is None or difference.units_needed <= difference.units:
        return ""
    return f"; a difference of this size would need about {float(f'{difference.units_needed:.2g}'):,.0f} {difference.unit_name}"


def describe_concentration(difference: PairedDifference) -> str:
    """Return a sentence that says how many units carry the difference, or "" without a difference."""
    if not difference.half_units:
        return ""
    return f"half of the difference comes from {difference.half_units:,} of {difference.units:,} {difference.unit_name}"


def describe_units(difference: PairedDifference) -> str:
    """Return a sentence that says what was compared if rows are not independent, or ""."""
    if difference.unit_name == ROWS:
        return ""
    return (
        f"the {difference.rows:,} test rows belong to {difference.units:,} {difference.unit_name}: the confidence counts those,"
        " since rows of one of them are alike"
    )


def slice_checks(
    gate: GateSettings,
    slices: Sequence[SliceMask],
    challenger_error: Vector,
    champion_error: Vector,
    units: Units | None = None,
    weight: Vector | None = None,
) -> list[Check]:
    """Check each slice of enough rows, or units. It fails if the challenger is significantly worse by more than allowed.

    Among many slices one looks worse by chance, so the confidence is raised with their number (Bonferroni correction).
    """
    of_slices = [(slice_, None if units is None else units.take(slice_.mask)) for slice_ in slices]
    large = [(slice_, part) for slice_, part in of_slices if _size(slice_, part) >= gate.min_slice_rows]

    def select_error(error: Vector, slice_: SliceMask) -> Vector:
        return weigh_error(error[slice_.mask], gate.metric, select(weight, slice_.mask))

    return [
        _slice_check(gate, slice_, len(large), select_error(challenger_error, slice_), select_error(champion_error, slice_), part)
        for slice_, part in large
    ]


def _size(slice_: SliceMask, units: Units | None) -> int:
    return int(slice_.mask.sum()) if units is None else units.count()


def _slice_check(  # pylint: disable=too-many-arguments,too-many-positional-arguments
    gate: GateSettings, slice_: SliceMask, n_slices: int, challenger_error: Vector, champion_error: Vector, units: Units | None
) -> Check:
    challenger_score = compute_score(challenger_error, gate.metric)
    champion_score = compute_score(champion_error, gate.metric)
    regression = challenger_score / champion_score - 1 if champion_score else 0.0
    actual = (
        f"{gate.metric} {challenger_score:.4f} against {champion_score:.4f} ({regression:+.1%}) on {len(challenger_error):,} rows"
    )
    is_regression = regression > gate.max_slice_regression
    failed = is_regression and _is_significantly_worse(gate, n_slices, challenger_error, champion_error, units)
    return Check(
        f"slice {slice_.kind} {slice_.name}",
        actual,
        f"at most {gate.max_slice_regression:+.0%}, unless by chance",
        not failed,
        regression,
    )


def _is_significantly_worse(
    gate: GateSettings, n_slices: int, challenger_error: Vector, champion_error: Vector, units: Units | None
) -> bool:
    confidence = 1 - (1 - gate.confidence) / n_slices
    n_resamples = gate.n_resamples * n_slices  # as many resamples beyond the bound as in the overall comparison
    settings = ComparisonSettings(gate.metric, confidence, n_resamples, gate.seed, gate.min_slice_rows)
    return paired_test(settings, challenger_error, champion_error, units).is_worse


def coverage_check(
    gate: GateSettings,
    bundle: Bundle,
    matrix: Matrix,
    actual: Vector,
    units: Units | None = None,
    weight: Vector | None = None,
) -> Iterator[Check]:
    """Check the coverage of the prediction intervals. It fails only if its exact confidence interval is outside the limits."""
    try:
        _, lower, upper = bundle.predict_interval(matrix, gate.nominal_coverage)
    except (BundleError, ConfigError):  # no intervals, or too few calibration rows for this coverage
        return
    inside = (lower <= actual) & (actual <= upper)
    coverage, trials = float(np.average(inside, weights=weight)), effective_rows(inside, units, weight)
    low, high = binomial_interval(coverage * trials, trials, gate.confidence)
    yield Check(
        "coverage",
        f"{gate.nominal_coverage:.0%} intervals cover {coverage:.1%} of {len(inside):,} rows"
        f" ({low:.1%} to {high:.1%}, {gate.confidence:.1%} confidence at either end)",
        f"{gate.min_coverage:.0%} to {gate.max_coverage:.0%}, unless by chance",
        high >= gate.min_coverage and low <= gate.max_coverage,
        coverage,
    )


def effective_rows(inside: NDArray[np.bool_], units: Units | None, weight: Vector | None) -> float:
    """Return how many independent rows of equal weight say as much about a share as these rows.

    This is the number that Korn and Graubard ("Confidence Intervals for Proportions with Small Expected Number of Positive Counts
    Estimated from Survey Data", Survey Methodology 24 (1998) 193-201) put into the exact interval. Rows depend on each other
    within units.
    """
    if units is None and weight is None:
        return float(len(inside))
    weight = np.ones(len(inside)) if weight is None else weight
    share, most = float(np.average(inside, weights=weight)), float(weight.sum() ** 2 / np.square(weight).sum())
    deviations = weight * (inside - share)
    deviations = deviations if units is None else units.sum(deviations)
    n_units = len(deviations)
    variance = float(np.square(deviations).sum()) / float(weight.sum()) ** 2 * n_units / max(n_units - 1, 1)
    return min(most, share * (1 - share) / variance if variance else float(n_units))


def binomial_interval(successes: float, trials: float, confidence: float) -> tuple[float, float]:
    """Return the exact interval of a share, with a one-sided `confidence` at either end (Clopper and Pearson, 1934)."""
    from scipy.stats import beta  # pylint: disable=import-outside-toplevel  # takes a second to import

    lower = float(beta.ppf(1 - confidence, successes, trials - successes + 1)) if successes else 0.0
    upper = float(beta.ppf(confidence, successes + 1, trials - successes)) if successes < trials else 1.0
    return lower, upper


def cost_checks(gate: GateSettings, costs: Mapping[str, float]) -> Iterator[Check]:
    """Check latency and size of a bundle against their limits, if there are any."""
    for name, limit in (("latency_us", gate.max_latency_us), ("model_bytes", gate.max_model_bytes)):
        limit_text = "no limit" if limit is None else f"at most {limit:,.0f}"
        yield Check(name, f"{costs[name]:,.0f}", limit_text, limit is None or costs[name] <= limit, costs[name])


def columns_check(challenger: Schema, champion: Schema | None) -> Iterator[Check]:
    """Check that the challenger accepts the requests that the champion accepts."""
    if champion is not None:
        changes = challenger.breaking_changes(champion)
        yield Check("columns", "; ".join(changes) or "unchanged", "compatible with the champion's requests", not changes)
