"""Where a model must not be trusted: sentences that follow from its figures by the rules below."""

from collections.abc import Iterator

from housing.evaluation.results import Elsewhere, Honest
from housing.evaluation.slices import BAND, CAPPED, Slice
from housing.schema.column import Column

WORSE = 1.5  # times the RMSE that it is compared with, from which on a figure is told


SHIFTED = 0.5  # of the RMSE of all rows: a mean error from which on it is told


FEW = 30  # rows; of fewer nothing is said


SHORT = 0.05  # by which the coverage of a part of the rows may be below what was asked


ASKED = 0.9


RULES = (
    f"A slice is named where its RMSE is over {WORSE:g} times that of all test rows, or its mean error over {SHIFTED:g} times"
    f" that RMSE; a distance where the RMSE beyond it is over {WORSE:g} times that of the nearest ring; a split where its RMSE is"
    f" over {WORSE:g} times that of the test rows; a part of the rows where their intervals cover {100 * SHORT:g} points less"
    f" than asked. Capped rows are named whatever their figures; nothing is said of fewer than {FEW} rows."
)


def not_to_trust(honest: Honest, target: Column) -> list[str]:
    """Give the sentences, by the rules of this module."""
    unit = f" (in {target.unit})" if target.unit else ""
    return [
        *(_of_capped(one, target.name, unit) for one in honest.slices if one.kind == CAPPED and one.rows >= FEW),
        *_of_slices(honest, unit),
        *(sentence for one in honest.elsewhere for sentence in _of_split(one, honest.scores["rmse"])),
        *_of_intervals(honest),
    ]


def _of_capped(one: Slice, target: str, unit: str) -> str:
    way = "under" if one.mean_error < 0 else "over"
    return (
        f"Rows with {target} capped {one.name} are {way}estimated by {abs(one.mean_error):.3g} on average{unit},"
        f" and their true value may lie farther out ({_rows(one.rows)})."
    )


def _of_slices(honest: Honest, unit: str) -> Iterator[str]:
    overall = honest.scores["rmse"]
    for one in sorted(honest.slices, key=lambda one: -one.rmse):
        if one.rows < FEW or one.kind == CAPPED:
            continue
        if one.share > WORSE:
            yield f"{_named(one)}: the RMSE is {one.rmse:.3g}, {one.share:.1f} times that of all rows ({_rows(one.rows)})."
        elif one.kind != BAND and abs(one.mean_error) > SHIFTED * overall:  # bands of the target shift by their nature
            way = "high" if one.mean_error > 0 else "low"
            yield f"{_named(one)}: predictions are too {way} by {abs(one.mean_error):.3g} on average{unit} ({_rows(one.rows)})."


def _named(one: Slice) -> str:
    kind = one.kind[0].upper() + one.kind[1:]
    return f"{kind} {one.name}"


def _of_split(one: Elsewhere, overall: float) -> Iterator[str]:
    rmse = one.scores["rmse"]
    where = {"grouped": "at places of which no row is known", "blocks": "in areas of which no row is known"}.get(
        one.split, one.split
    )
    if rmse > WORSE * overall:
        yield f"Rows {where}: the RMSE is {rmse:.3g} instead of {overall:.3g} ({_rows(one.test_rows)} held out)."
    beyond = _reach(one)
    if beyond is not None:
        near = one.rings[0]
        yield (
            f"Rows more than {beyond:g} km from the nearest known one: the RMSE is over {WORSE:g} times the {near.rmse:.3g}"
            f" of those within {near.up_to:g} km."
        )


def _reach(one: Elsewhere) -> float | None:
    """Give the distance from which on every ring is worse than near training rows, or None."""
    reach = None
    for ring in reversed(one.rings[1:]):
        if ring.rmse <= WORSE * one.rings[0].rmse:
            break
        reach = ring.above
    return reach


def _of_intervals(honest: Honest) -> Iterator[str]:
    for one in honest.coverage:
        if one.rows >= FEW and one.share < ASKED - SHORT:
            what = "All rows" if one.kind == "all" else f"{one.kind} {one.name}"
            yield f"{what}: intervals that ask for {ASKED:.0%} cover {one.share:.1%} ({_rows(one.rows)})."


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"
