"""The gate's rules: what a challenger is compared by, what vetoes it, and the verdict that follows."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.core.errors import BundleError, ConfigError
from housing.evaluation.bootstrap import Difference, compare, score_of
from housing.evaluation.slices import Group
from housing.promotion.decision import HOLD, PROMOTE, REJECT, Check
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema


def overall(gate: DictConfig, metric: str, mine: Vector, theirs: Vector) -> Difference:
    """Compare the errors of challenger and champion on all rows that both take."""
    return compare(mine, theirs, metric, gate.certainty, gate.resamples, gate.seed)


def verdict_of(difference: Difference, checks: Sequence[Check]) -> str:
    """Give PROMOTE for what is better for certain, REJECT for what is worse for certain or vetoed, HOLD for what is between."""
    if difference.is_worse or not all(check.passed for check in checks):
        return REJECT
    return PROMOTE if difference.is_better else HOLD


def told(difference: Difference, metric: str, champion: str, certainty: float) -> str:
    """Say in a sentence what the comparison found."""
    figures = f"test {metric} {difference.mine:.4f} against {difference.theirs:.4f} of {champion}"
    if difference.is_better:
        return f"better: {figures}, lower by {-difference.high:.4f} at least ({certainty:.1%} certain)"
    if difference.is_worse:
        return f"worse: {figures}, higher by {difference.low:.4f} at least ({certainty:.1%} certain)"
    between = f"{difference.low:+.4f} to {difference.high:+.4f}"
    return f"not proven better: {figures}; the difference may be anything from {between} ({certainty:.1%} certain at either end)"


def slice_checks(gate: DictConfig, metric: str, groups: Sequence[Group], mine: Vector, theirs: Vector) -> list[Check]:
    """Check each slice of enough rows; it vetoes where the challenger is worse by more than the margin, and that for certain.

    With many slices one of them looks worse by chance, so each has to be as much more certain (Bonferroni).
    """
    judged = [group for group in groups if group.where.sum() >= gate.slices.rows]
    return [_slice_check(gate, metric, group, len(judged), mine[group.where], theirs[group.where]) for group in judged]


def _slice_check(gate: DictConfig, metric: str, group: Group, slices: int, mine: Vector, theirs: Vector) -> Check:
    my_score, their_score, margin = score_of(mine, metric), score_of(theirs, metric), gate.slices.margin
    share = my_score / their_score - 1 if their_score else 0.0
    found = f"{metric} {my_score:.4f} against {their_score:.4f} ({share:+.1%}) on {len(mine):,} rows"
    lost = share > margin and _is_certain(gate, metric, slices, mine, theirs)
    return Check(f"slice {group.kind} {group.name}", found, f"up to {margin:+.0%}, or by chance", not lost, share)


def _is_certain(gate: DictConfig, metric: str, slices: int, mine: Vector, theirs: Vector) -> bool:
    certainty = 1 - (1 - gate.certainty) / slices  # so far out there are as many resamples as for all rows
    return compare(mine, theirs, metric, certainty, gate.resamples * slices, gate.seed).is_worse


def coverage_check(gate: DictConfig, bundle: Bundle, matrix: Matrix, actual: Vector) -> Iterator[Check]:
    """Check that about as many targets lie in their interval as it promises. A bundle without intervals promises nothing."""
    asked, least, most = gate.coverage.asked, gate.coverage.least, gate.coverage.most
    try:
        _, lower, upper = bundle.predict_interval(matrix, asked)
    except (BundleError, ConfigError):  # no intervals, or none that wide: `asked` is a share, as promote has seen to
        return
    share = float(np.mean((lower <= actual) & (actual <= upper)))
    found = f"intervals at {asked:.0%} hold {share:.1%}"
    yield Check("coverage", found, f"{least:.0%} to {most:.0%}", least <= share <= most, share)


def cost_checks(gate: DictConfig, costs: Mapping[str, float]) -> Iterator[Check]:
    """Check what a bundle costs against the limits of the config, where there are any."""
    for name in ("row_microseconds", "model_bytes"):
        limit = gate[name]
        allowed = "no limit" if limit is None else f"up to {limit:,.0f}"
        yield Check(name, f"{costs[name]:,.0f}", allowed, limit is None or costs[name] <= limit, costs[name])


def columns_check(challenger: Schema, champion: Schema | None) -> Iterator[Check]:
    """Check that callers of the champion may go on sending what they send."""
    if champion is not None:
        broken = challenger.broken_for(champion)
        yield Check("columns", "; ".join(broken) or "as before", "what callers of the champion send", not broken)
