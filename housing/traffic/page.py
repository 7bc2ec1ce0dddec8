"""The page of a replay."""

import math
from collections.abc import Mapping, Sequence

from housing.reports.page import MISSING, HtmlTable, Page, Section
from housing.schema.table_schema import Schema
from housing.traffic.differences import Summary
from housing.traffic.figures import column_figures, difference_figures
from housing.traffic.result import QUANTILES, ReplayResult

MAX_FIGURES = 6  # columns with a figure; the table has all
DIFFERENCE_HEADER = ("rows", "mean", "mean absolute", "RMS")
LABELS_TEXT = (
    "True values come from feedback. Rows with feedback may not represent all rows. The bounds hold for one look: if you"
    " replay until a difference is significant, you find one by chance. Rows of one request, and rows with equal features,"
    " count as one group."
)


def build_page(result: ReplayResult, schema: Schema, links: Mapping[str, str]) -> Page:
    """Return the page. `links` lead to the candidate's run."""
    overall, candidate = result.differences.overall, result.candidate
    page = Page(
        f"{schema.name}: logged requests, predicted by {result.name}",
        f"Requests {result.period}. Each row of the prediction log is predicted by {result.name} (the candidate) and compared"
        " with the prediction that its caller got (the answer). A difference is candidate minus answer. It does not say"
        " which of the two is right.",
        links,
        {
            "requests": f"{result.log.entries:,}",
            "rows": f"{result.rows:,}",
            "refused rows": f"{candidate.refused:,}",
            "damaged lines": f"{result.log.malformed:,}",
            "mean difference": _signed(overall.mean),
            "RMS difference": _number(overall.rms),
            "validation, µs/row": f"{result.validation_us:.1f}",
            "prediction, µs/row": f"{result.prediction_us:.1f}",
            "one row alone, µs": MISSING if result.alone_us is None else f"{result.alone_us:.0f}",
        },
    )
    page.sections.append(_errors_section(result))
    page.sections.append(_refused_section(result))
    if candidate.predicted:
        target = schema.target
        unit = f"{target.name} ({target.unit_label})" if target.unit else target.name
        page.sections.extend([_differences_section(result, unit), _columns_section(result, unit)])
    return page


def _errors_section(result: ReplayResult) -> Section:
    errors = result.errors
    bullets = [errors.sentence]
    if errors.in_table:
        bullets.append(f"{errors.in_table:,} true values are left out: their rows stand in the candidate's table.")
    if errors.undecided:
        bullets.append(
            f"{errors.undecided:,} true values are left out: they are older than the candidate, whose table is not on this"
            " machine. It may have been fitted on them."
        )
    if result.refused_labels:
        bullets.append(f"{result.refused_labels:,} true values are left out: the candidate refuses their rows.")
    return Section("Errors on true values", LABELS_TEXT, bullets)


def _refused_section(result: ReplayResult) -> Section:
    candidate = result.candidate
    if not candidate.refused:
        return Section("Refused rows", "The candidate accepts every row.")
    rows = [(column, reason, f"{rows:,}") for (column, reason), rows in candidate.reasons.most_common()]
    text = (
        f"{candidate.refused:,} of {result.rows:,} rows ({candidate.refused / result.rows:.2%}): a server with the candidate"
        " would answer their callers with 422. A row can have several reasons."
    )
    return Section("Refused rows", text, tables=[HtmlTable(("column", "reason", "rows"), rows, n_text_columns=2)])


def _differences_section(result: ReplayResult, unit: str) -> Section:
    differences = result.differences
    quantiles = zip(QUANTILES, differences.quantiles(QUANTILES), strict=True)
    bullets = [f"{level:.0%} of the sampled rows differ by at most {value:.4g}." for level, value in quantiles]
    bullets.append(f"The largest difference of all rows is {differences.largest:.4g}.")
    rows = [(f"version {version}", *_cells(summary)) for version, summary in differences.by_version().items()]
    table = HtmlTable(("answered by", *DIFFERENCE_HEADER), rows)
    return Section("Differences", f"In the unit of {unit}.", bullets, [table], difference_figures(differences, unit))


def _columns_section(result: ReplayResult, unit: str) -> Section:
    columns = result.differences.by_column()
    rows = [
        (column.name, f"{column.explained:.1%}", name, *_cells(summary))
        for column in columns
        for name, summary in column.bins.items()
    ]
    table = HtmlTable(("column", "explained", "bin", *DIFFERENCE_HEADER), rows, 3, "Show all columns as a table")
    text = (
        "Bins are those of the candidate's training rows. The share that a column explains is the variance between its bins,"
        " divided by the variance of all differences."
    )
    return Section("Where they differ", text, figures=column_figures(columns[:MAX_FIGURES], unit), tables=[table])


def _cells(summary: Summary) -> Sequence[str]:
    return f"{summary.rows:,}", _signed(summary.mean), _number(summary.mean_absolute), _number(summary.rms)


def _number(value: float) -> str:
    return MISSING if math.isnan(value) else f"{value:.4g}"


def _signed(value: float) -> str:
    return MISSING if math.isnan(value) else f"{value:+.4g}"
