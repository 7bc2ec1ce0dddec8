"""Where a model must not be trusted: sentences that follow from its figures by the rules below."""

from collections.abc import Iterator

from housing.evaluation.results import Evaluation, HarderSplitResult
from housing.evaluation.slices import CAPPED, TARGET_BAND, SliceScore
from housing.schema.column import Column

RMSE_RATIO = 1.5  # times the RMSE that it is compared with, from which on a figure is told


BIAS_RATIO = 0.5  # of the RMSE of all rows: a mean error from which on it is told


MIN_ROWS = 30  # rows; of fewer nothing is said


COVERAGE_SLACK = 0.05  # by which the coverage of a part of the rows may be below what was asked


NOMINAL = 0.9


RULES = (
    f"A slice is named where its RMSE is over {RMSE_RATIO:g} times that of all test rows, or its mean error over {BIAS_RATIO:g} times"
    f" that RMSE; a distance where the RMSE beyond it is over {RMSE_RATIO:g} times that of the nearest ring; a split where its RMSE is"
    f" over {RMSE_RATIO:g} times that of the test rows; a part of the rows where their intervals cover {100 * COVERAGE_SLACK:g} points less"
    f" than asked. Capped rows are named whatever their figures; nothing is said of fewer than {MIN_ROWS} rows."
)


def find_limitations(evaluation: Evaluation, target: Column) -> list[str]:
    """Give the sentences, by the rules of this module."""
    unit = f" (in {target.unit})" if target.unit else ""
    return [
        *(_capped_limitation(one, target.name, unit) for one in evaluation.slices if one.kind == CAPPED and one.rows >= MIN_ROWS),
        *_slice_limitations(evaluation, unit),
        *(sentence for one in evaluation.harder_splits for sentence in _split_limitations(one, evaluation.scores["rmse"])),
        *_interval_limitations(evaluation),
    ]


def _capped_limitation(score: SliceScore, target: str, unit: str) -> str:
    way = "under" if score.mean_error < 0 else "over"
    return (
        f"Rows with {target} capped {score.name} are {way}estimated by {abs(score.mean_error):.3g} on average{unit},"
        f" and their true value may lie farther out ({_row_count(score.rows)})."
    )


def _slice_limitations(evaluation: Evaluation, unit: str) -> Iterator[str]:
    overall = evaluation.scores["rmse"]
    for one in sorted(evaluation.slices, key=lambda one: -one.rmse):
        if one.rows < MIN_ROWS or one.kind == CAPPED:
            continue
        if one.ratio > RMSE_RATIO:
            yield f"{_title(one)}: the RMSE is {one.rmse:.3g}, {one.ratio:.1f} times that of all rows ({_row_count(one.rows)})."
        elif one.kind != TARGET_BAND and abs(one.mean_error) > BIAS_RATIO * overall:  # bands of the target shift by their nature
            way = "high" if one.mean_error > 0 else "low"
            yield f"{_title(one)}: predictions are too {way} by {abs(one.mean_error):.3g} on average{unit} ({_row_count(one.rows)})."


def _title(score: SliceScore) -> str:
    kind = score.kind[0].upper() + score.kind[1:]
    return f"{kind} {score.name}"


def _split_limitations(result: HarderSplitResult, overall: float) -> Iterator[str]:
    rmse = result.scores["rmse"]
    where = {"grouped": "at places of which no row is known", "blocks": "in areas of which no row is known"}.get(
        result.split, result.split
    )
    if rmse > RMSE_RATIO * overall:
        yield f"Rows {where}: the RMSE is {rmse:.3g} instead of {overall:.3g} ({_row_count(result.test_rows)} held out)."
    beyond = _distance_limit(result)
    if beyond is not None:
        near = result.distance_bands[0]
        yield (
            f"Rows more than {beyond:g} km from the nearest known one: the RMSE is over {RMSE_RATIO:g} times the {near.rmse:.3g}"
            f" of those within {near.max_km:g} km."
        )


def _distance_limit(result: HarderSplitResult) -> float | None:
    """Give the distance from which on every ring is worse than near training rows, or None."""
    reach = None
    for ring in reversed(result.distance_bands[1:]):
        if ring.rmse <= RMSE_RATIO * result.distance_bands[0].rmse:
            break
        reach = ring.min_km
    return reach


def _interval_limitations(evaluation: Evaluation) -> Iterator[str]:
    for one in evaluation.coverage:
        if one.rows >= MIN_ROWS and one.coverage < NOMINAL - COVERAGE_SLACK:
            what = "All rows" if one.kind == "all" else f"{one.kind} {one.name}"
            yield f"{what}: intervals that ask for {NOMINAL:.0%} cover {one.coverage:.1%} ({_row_count(one.rows)})."


def _row_count(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"
