"""Limitations of a model: sentences that follow from its evaluation by fixed rules."""

from collections.abc import Iterator

from housing.evaluation.results import Evaluation, HarderSplitResult
from housing.evaluation.slices import CAPPED, TARGET_BAND
from housing.schema.column import Column

RMSE_RATIO = 1.5  # an RMSE above this multiple of its reference is a limitation
BIAS_RATIO = 0.5  # so is a mean error above this multiple of the RMSE of all rows
MIN_ROWS = 30  # smaller slices are too noisy to judge
COVERAGE_SLACK = 0.05  # tolerated gap between nominal and actual coverage
NOMINAL = 0.9
SPLIT_DESCRIPTIONS = {"grouped": "of groups, or at locations, without training rows", "blocks": "in areas without training rows"}

RULES = (
    f"A slice is listed if its RMSE exceeds {RMSE_RATIO:g} times the RMSE of all test rows, or if its mean error exceeds"
    f" {BIAS_RATIO:g} times that RMSE. A distance is listed if every band beyond it has an RMSE above {RMSE_RATIO:g} times that"
    f" of the nearest band. A harder split is listed if its RMSE exceeds {RMSE_RATIO:g} times that of the test rows. Prediction"
    f" intervals are listed if their coverage is more than {100 * COVERAGE_SLACK:g} points below the nominal {NOMINAL:.0%}."
    f" Capped rows are always listed. Slices of fewer than {MIN_ROWS} rows are not judged."
)


def find_limitations(evaluation: Evaluation, target: Column) -> list[str]:
    """Return the limitations that follow from an evaluation by `RULES`."""
    unit = f" (in {target.unit_label})" if target.unit else ""
    overall = evaluation.scores["rmse"]
    return [
        *_capped_limitations(evaluation, target.name, unit),
        *_slice_limitations(evaluation, unit),
        *(sentence for result in evaluation.harder_splits for sentence in _split_limitations(result, overall)),
        *_interval_limitations(evaluation),
    ]


def _capped_limitations(evaluation: Evaluation, target: str, unit: str) -> Iterator[str]:
    for score in evaluation.slices:
        if score.kind == CAPPED and score.rows >= MIN_ROWS:
            direction = "underestimated" if score.mean_error < 0 else "overestimated"
            yield (
                f"Rows with {target} capped {score.name} are {direction} by {abs(score.mean_error):.3g}{unit} on average,"
                f" and their true value may lie beyond the cap ({_row_count(score.rows)})."
            )


def _slice_limitations(evaluation: Evaluation, unit: str) -> Iterator[str]:
    overall = evaluation.scores["rmse"]
    for score in sorted(evaluation.slices, key=lambda score: -score.rmse):
        if score.rows < MIN_ROWS or score.kind == CAPPED:
            continue
        title = f"{score.kind[0].upper()}{score.kind[1:]} {score.name}"
        if score.ratio > RMSE_RATIO:
            yield f"{title}: the RMSE is {score.rmse:.3g}, {score.ratio:.1f} times that of all rows ({_row_count(score.rows)})."
        elif score.kind != TARGET_BAND and abs(score.mean_error) > BIAS_RATIO * overall:  # bands of the target are always biased
            direction = "high" if score.mean_error > 0 else "low"
            yield (
                f"{title}: predictions are too {direction} by {abs(score.mean_error):.3g}{unit} on average"
                f" ({_row_count(score.rows)})."
            )


def _split_limitations(result: HarderSplitResult, overall: float) -> Iterator[str]:
    rmse = result.scores["rmse"]
    if rmse > RMSE_RATIO * overall:
        rows = SPLIT_DESCRIPTIONS.get(result.split, result.split)
        yield f"Rows {rows}: the RMSE is {rmse:.3g} instead of {overall:.3g} ({_row_count(result.test_rows)} held out)."
    distance = _distance_limit(result)
    if distance is not None:
        nearest = result.distance_bands[0]
        yield (
            f"Rows more than {distance:g} km from the nearest training row: the RMSE is over {RMSE_RATIO:g} times the"
            f" {nearest.rmse:.3g} of rows within {nearest.max_km:g} km."
        )


def _distance_limit(result: HarderSplitResult) -> float | None:
    """Return the distance in km beyond which every band is worse than the nearest band, or None."""
    limit = None
    for band in reversed(result.distance_bands[1:]):
        if band.rmse <= RMSE_RATIO * result.distance_bands[0].rmse:
            break
        limit = band.min_km
    return limit


def _interval_limitations(evaluation: Evaluation) -> Iterator[str]:
    for coverage in evaluation.coverage:
        if coverage.rows >= MIN_ROWS and coverage.coverage < NOMINAL - COVERAGE_SLACK:
            rows = "All rows" if coverage.kind == "all" else f"{coverage.kind} {coverage.name}"
            yield f"{rows}: {NOMINAL:.0%} intervals cover {coverage.coverage:.1%} ({_row_count(coverage.rows)})."


def _row_count(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"
