"""Tables of errors by slice and by group, for the page of a run and for the model card."""

from collections.abc import Sequence

from housing.evaluation.limitations import MIN_ROWS
from housing.evaluation.slices import SliceScore
from housing.reports.page import HtmlTable

SCORES = ("rows", "RMSE", "RMSE / all rows", "mean error")
GROUPS_TEXT = (
    "Groups of columns with the role audit: no model receives these columns. Compare the intervals, not the RMSE alone. The mean"
    " error is the mean of predicted minus actual."
)
TOO_SMALL = f"too small to judge: fewer than {MIN_ROWS} rows"


def slice_table(scored: Sequence[SliceScore], summary: str = "") -> HtmlTable:
    """Return the errors of slices that are no groups."""
    rows = [(score.kind, score.name, f"{score.rows:,}", *_errors(score)) for score in scored if not score.is_group]
    return HtmlTable(("slice", "", *SCORES), rows, n_text_columns=2, summary=summary)


def group_tables(scored: Sequence[SliceScore]) -> list[HtmlTable]:
    """Return a table of the groups of audit columns, with intervals and without the errors of small groups, or no table."""
    rows = [
        (
            *(score.kind, score.name, TOO_SMALL if score.rows < MIN_ROWS else _interval(score), f"{score.rows:,}"),
            *(("–",) * 3 if score.rows < MIN_ROWS else _errors(score)),
        )
        for score in scored
        if score.is_group
    ]
    return [HtmlTable(("column", "group", "95 % interval of the RMSE", *SCORES), rows, n_text_columns=3)] if rows else []


def _interval(score: SliceScore) -> str:
    if score.rmse_lower is None or score.rmse_upper is None:  # enough rows, but they belong to few customers or days
        return "too few units for an interval"
    return f"{score.rmse_lower:.4f} to {score.rmse_upper:.4f}"


def _errors(score: SliceScore) -> tuple[str, str, str]:
    return f"{score.rmse:.4f}", f"{score.ratio:.2f}", f"{score.mean_error:+.4f}"
