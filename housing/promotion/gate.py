"""The gate's rules: what a challenger is compared by, what vetoes it, and the verdict that follows."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.core.errors import BundleError, ConfigError
from housing.evaluation.bootstrap import PairedDifference, compute_score, paired_bootstrap
from housing.evaluation.slices import SliceMask
from housing.promotion.decision import HOLD, PROMOTE, REJECT, Check
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema


def compare_overall(gate: DictConfig, metric: str, challenger_error: Vector, champion_error: Vector) -> PairedDifference:
    """Compare the errors of challenger and champion on all rows that both take."""
    return paired_bootstrap(challenger_error, champion_error, metric, gate.confidence, gate.n_resamples, gate.seed)


def decide_verdict(difference: PairedDifference, checks: Sequence[Check]) -> str:
    """Give PROMOTE for what is better for certain, REJECT for what is worse for certain or vetoed, HOLD for what is between."""
    if difference.is_worse or not all(check.passed for check in checks):
        return REJECT
    return PROMOTE if difference.is_better else HOLD


def describe(difference: PairedDifference, metric: str, champion: str, confidence: float) -> str:
    """Say in a sentence what the comparison found."""
    figures = f"test {metric} {difference.challenger_score:.4f} against {difference.champion_score:.4f} of {champion}"
    if difference.is_better:
        return f"better: {figures}, lower by {-difference.upper:.4f} at least ({confidence:.1%} certain)"
    if difference.is_worse:
        return f"worse: {figures}, higher by {difference.lower:.4f} at least ({confidence:.1%} certain)"
    between = f"{difference.lower:+.4f} to {difference.upper:+.4f}"
    return f"not proven better: {figures}; the difference may be anything from {between} ({confidence:.1%} certain at either end)"


def slice_checks(
    gate: DictConfig, metric: str, slices: Sequence[SliceMask], challenger_error: Vector, champion_error: Vector
) -> list[Check]:
    """Check each slice of enough rows; it vetoes where the challenger is worse by more than the margin, and that for certain.

    With many slices one of them looks worse by chance, so each has to be as much more certain (Bonferroni).
    """
    judged = [group for group in slices if group.mask.sum() >= gate.slices.min_rows]
    return [
        _slice_check(gate, metric, group, len(judged), challenger_error[group.mask], champion_error[group.mask])
        for group in judged
    ]


def _slice_check(
    gate: DictConfig, metric: str, slice_: SliceMask, n_slices: int, challenger_error: Vector, champion_error: Vector
) -> Check:
    my_score, their_score, margin = (
        compute_score(challenger_error, metric),
        compute_score(champion_error, metric),
        gate.slices.max_regression,
    )
    share = my_score / their_score - 1 if their_score else 0.0
    found = f"{metric} {my_score:.4f} against {their_score:.4f} ({share:+.1%}) on {len(challenger_error):,} rows"
    lost = share > margin and _is_significant(gate, metric, n_slices, challenger_error, champion_error)
    return Check(f"slice {slice_.kind} {slice_.name}", found, f"up to {margin:+.0%}, or by chance", not lost, share)


def _is_significant(gate: DictConfig, metric: str, n_slices: int, challenger_error: Vector, champion_error: Vector) -> bool:
    certainty = 1 - (1 - gate.confidence) / n_slices  # so far out there are as many resamples as for all rows
    return paired_bootstrap(challenger_error, champion_error, metric, certainty, gate.n_resamples * n_slices, gate.seed).is_worse


def coverage_check(gate: DictConfig, bundle: Bundle, matrix: Matrix, actual: Vector) -> Iterator[Check]:
    """Check that about as many targets lie in their interval as it promises. A bundle without intervals promises nothing."""
    asked, least, most = gate.coverage.nominal, gate.coverage.min, gate.coverage.max
    try:
        _, lower, upper = bundle.predict_interval(matrix, asked)
    except (BundleError, ConfigError):  # no intervals, or none that wide: `asked` is a share, as promote has seen to
        return
    share = float(np.mean((lower <= actual) & (actual <= upper)))
    found = f"intervals at {asked:.0%} hold {share:.1%}"
    yield Check("coverage", found, f"{least:.0%} to {most:.0%}", least <= share <= most, share)


def cost_checks(gate: DictConfig, costs: Mapping[str, float]) -> Iterator[Check]:
    """Check what a bundle costs against the limits of the config, where there are any."""
    for name in ("latency_us", "model_bytes"):
        limit = gate[name]
        allowed = "no limit" if limit is None else f"up to {limit:,.0f}"
        yield Check(name, f"{costs[name]:,.0f}", allowed, limit is None or costs[name] <= limit, costs[name])


def columns_check(challenger: Schema, champion: Schema | None) -> Iterator[Check]:
    """Check that callers of the champion may go on sending what they send."""
    if champion is not None:
        broken = challenger.breaking_changes(champion)
        yield Check("columns", "; ".join(broken) or "as before", "what callers of the champion send", not broken)
