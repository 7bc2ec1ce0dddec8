"""The gate's rules: the comparison with the champion, the checks that veto, and the verdict that follows."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from housing.bundle.bundle import Bundle
from housing.core.errors import BundleError, ConfigError
from housing.evaluation.bootstrap import PairedDifference, compute_score, paired_bootstrap
from housing.evaluation.slices import SliceMask
from housing.promotion.decision import HOLD, PROMOTE, REJECT, Check
from housing.promotion.settings import GateSettings
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema


def compare_overall(gate: GateSettings, challenger_error: Vector, champion_error: Vector) -> PairedDifference:
    """Compare the errors of challenger and champion on all rows that both accept."""
    return paired_bootstrap(challenger_error, champion_error, gate.metric, gate.confidence, gate.n_resamples, gate.seed)


def decide_verdict(difference: PairedDifference, checks: Sequence[Check]) -> str:
    """Return REJECT if the challenger is significantly worse or fails a check, PROMOTE if significantly better, else HOLD."""
    if difference.is_worse or not all(check.passed for check in checks):
        return REJECT
    return PROMOTE if difference.is_better else HOLD


def describe(gate: GateSettings, difference: PairedDifference, champion: str) -> str:
    """Describe the result of the comparison in one sentence."""
    scores = f"test {gate.metric} {difference.challenger_score:.4f} against {difference.champion_score:.4f} of {champion}"
    confidence = f"{gate.confidence:.1%} confidence"
    if difference.is_better:
        return f"significantly better: {scores}, lower by at least {-difference.upper:.4f} ({confidence})"
    if difference.is_worse:
        return f"significantly worse: {scores}, higher by at least {difference.lower:.4f} ({confidence})"
    return (
        f"no significant difference: {scores}, a difference between {difference.lower:+.4f} and {difference.upper:+.4f}"
        f" ({confidence} at either end)"
    )


def slice_checks(
    gate: GateSettings, slices: Sequence[SliceMask], challenger_error: Vector, champion_error: Vector
) -> list[Check]:
    """Check each slice of enough rows. It fails if the challenger is significantly worse by more than the allowed regression.

    Among many slices one looks worse by chance, so the confidence is raised with their number (Bonferroni correction).
    """
    large = [slice_ for slice_ in slices if slice_.mask.sum() >= gate.min_slice_rows]
    return [
        _slice_check(gate, slice_, len(large), challenger_error[slice_.mask], champion_error[slice_.mask]) for slice_ in large
    ]


def _slice_check(gate: GateSettings, slice_: SliceMask, n_slices: int, challenger_error: Vector, champion_error: Vector) -> Check:
    challenger_score = compute_score(challenger_error, gate.metric)
    champion_score = compute_score(champion_error, gate.metric)
    regression = challenger_score / champion_score - 1 if champion_score else 0.0
    actual = (
        f"{gate.metric} {challenger_score:.4f} against {champion_score:.4f} ({regression:+.1%}) on {len(challenger_error):,} rows"
    )
    is_regression = regression > gate.max_slice_regression
    failed = is_regression and _is_significantly_worse(gate, n_slices, challenger_error, champion_error)
    return Check(
        f"slice {slice_.kind} {slice_.name}",
        actual,
        f"at most {gate.max_slice_regression:+.0%}, unless by chance",
        not failed,
        regression,
    )


def _is_significantly_worse(gate: GateSettings, n_slices: int, challenger_error: Vector, champion_error: Vector) -> bool:
    confidence = 1 - (1 - gate.confidence) / n_slices
    n_resamples = gate.n_resamples * n_slices  # as many resamples beyond the bound as in the overall comparison
    return paired_bootstrap(challenger_error, champion_error, gate.metric, confidence, n_resamples, gate.seed).is_worse


def coverage_check(gate: GateSettings, bundle: Bundle, matrix: Matrix, actual: Vector) -> Iterator[Check]:
    """Check that the coverage of the prediction intervals is near the nominal one. A bundle without intervals has no check."""
    try:
        _, lower, upper = bundle.predict_interval(matrix, gate.nominal_coverage)
    except (BundleError, ConfigError):  # no intervals, or too few calibration rows for this coverage
        return
    coverage = float(np.mean((lower <= actual) & (actual <= upper)))
    yield Check(
        "coverage",
        f"{gate.nominal_coverage:.0%} intervals cover {coverage:.1%}",
        f"{gate.min_coverage:.0%} to {gate.max_coverage:.0%}",
        gate.min_coverage <= coverage <= gate.max_coverage,
        coverage,
    )


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
