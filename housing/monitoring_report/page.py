"""The page of a monitoring report."""

from collections.abc import Iterator, Sequence

from housing.monitoring.domain_classifier import Z_LIMIT
from housing.monitoring_report.figures import draw_drift, draw_errors, draw_latency, draw_traffic
from housing.monitoring_report.measured import Measured, number_text
from housing.monitoring_report.period_data import PeriodData
from housing.monitoring_report.summary import LEVELS, MonitoringReport, VersionSummary
from housing.monitoring_report.timeline import time_text
from housing.monitoring_report.unknown import version_text
from housing.promotion.decision_log import DecisionRecord
from housing.reports.page import MISSING, HtmlTable, Page, Section
from housing.schema.column import Column

MAX_ERROR_FIGURES = 4  # the latest versions; the table has all
MAX_COLUMNS = 10  # in the table of drift
LATENCY_TEXT = (
    "From the start of a request in the worker to its entry in the log, without the network and without time in a queue."
    " Percentiles are exact to 1 %. In parentheses, 95 % intervals, as if requests were independent of each other."
)
ERRORS_TEXT = (
    "Estimated errors are what the model itself expects on these rows, before true values are known. They see that rows are like"
    " those on which it erred in training, and not that prices have changed for the same rows: only true values show that. Ranges"
    " are two standard errors, which are too narrow on shifted rows: in the benchmark 84 % of windows are within them, where 95 %"
    " are expected. Realised errors are of the rows with true values, which may not represent all rows. Their 95 % intervals take"
    " requests as independent."
)
DRIFT_TEXT = (
    "A classifier tries to tell the rows of a window from training rows. A window counts as drifted if its success is more than"
    f" {Z_LIMIT} standard deviations above chance. Without drift, at most 1 % of windows are. Drift says that rows are different,"
    " not that predictions are worse. A window that only overlaps the period counts in full."
)
ERRORS_HEADER = (
    *("version", "estimated RMSE", "held-out RMSE", "realised RMSE", "mean error", "realised MAE", "true values"),
    "share of rows",
)
REFUSED_TEXT = "By full hours, from the monitor. The prediction log does not have refused requests."


def build_page(data: PeriodData, report: MonitoringReport, title: str, target: Column) -> Page:
    """Return the page. `title` names what is served."""
    unit = target.unit_label
    page = Page(
        title,
        f"Requests from {time_text(data.timeline.since)} to {time_text(data.timeline.until)} UTC. Errors are in the unit of"
        f" {target.name}{f' ({unit})' if unit else ''}.",
        {},
        dict(_facts(report)),
    )
    if report.unknown:
        page.sections.append(Section("Unknown", "What this page does not know, or knows in part only.", report.unknown))
    page.sections.extend(
        [
            _traffic_section(data, report),
            _errors_section(data, report, unit),
            _drift_section(data, report),
            _refused_section(report),
            _decisions_section(report.decisions),
        ]
    )
    return page


def _facts(report: MonitoringReport) -> Iterator[tuple[str, str]]:
    yield "requests", f"{report.requests:,}"
    yield "rows", f"{report.rows:,}"
    for name, measured in report.latency_ms.items():
        yield f"latency {name}, ms", number_text(measured.value)
    refused = report.refused_values
    yield "refused values", MISSING if refused is None else f"{sum(item.count for item in refused):,}"
    windows, drifted = sum(item.windows for item in report.versions), sum(item.drifted_windows for item in report.versions)
    yield "drifted windows", f"{drifted:,} of {windows:,}" if windows else MISSING
    latest = report.versions[-1] if report.versions else None
    if latest is not None:
        estimated, realised, suffix = latest.estimated_rmse, latest.realised, f"RMSE, {version_text(latest.key)}"
        yield f"estimated {suffix}", MISSING if estimated is None else number_text(estimated.value)
        yield f"realised {suffix}", MISSING if realised is None else number_text(realised.rmse.value)
    yield "decisions", MISSING if report.decisions is None else f"{len(report.decisions):,}"


def _traffic_section(data: PeriodData, report: MonitoringReport) -> Section:
    if not report.requests:
        return Section("Traffic and latency", "The log has no request of this period.")
    versions = data.traffic.versions
    rows = [
        (version_text(key), f"{item.requests:,}", f"{item.rows:,}", f"{item.failed:,}", *map(time_text, (item.first, item.last)))
        for key, item in ((key, versions[key]) for key in data.versions if key in versions)
    ]
    tables = [HtmlTable(("answered by", "requests", "rows", "failed (status 500)", "first, UTC", "last, UTC"), rows)]
    figures = [draw_traffic(data)]
    if data.traffic.all_latencies.total:
        histograms = {"all routes": data.traffic.all_latencies, **data.traffic.latency_by_route}
        latencies = [
            (route, f"{histogram.total:,}", *(str(histogram.quantile(level)) for level in LEVELS))
            for route, histogram in histograms.items()
        ]
        tables.append(HtmlTable(("route", "requests", *(f"p{100 * level:.0f}, ms" for level in LEVELS)), latencies))
        figures.append(draw_latency(data))
    return Section("Traffic and latency", LATENCY_TEXT, tables=tables, figures=figures)


def _errors_section(data: PeriodData, report: MonitoringReport, unit: str) -> Section:
    known = [item for item in report.versions if item.estimated_rmse is not None or item.realised is not None]
    if not known:
        return Section("Errors", "No error is known, neither estimated nor realised: see Unknown.")
    table = HtmlTable(ERRORS_HEADER, [_error_cells(item) for item in known])
    figures = [draw_errors(data, item.key, unit) for item in known[-MAX_ERROR_FIGURES:]]
    return Section("Errors", ERRORS_TEXT, [sentence for item in known for sentence in error_sentences(item)], [table], figures)


def error_sentences(item: VersionSummary) -> Iterator[str]:
    """Yield what is known about the error of a version."""
    name, estimated, realised = version_text(item.key).capitalize(), item.estimated_rmse, item.realised
    if estimated is not None:
        ratio = (
            f", {estimated.value / estimated.held_out_rmse:.2f} times that of held-out rows" if estimated.held_out_rmse else ""
        )
        yield (
            f"{name}: the estimated RMSE of {estimated.rows:,} rows is"
            f" {Measured(estimated.value, estimated.lower, estimated.upper)}{ratio}. {_describe_correction(estimated.correction)}"
        )
    if realised is not None:
        yield (
            f"{name}: the realised RMSE of {realised.labels:,} rows with true values is {realised.rmse}. {_compare(item)}"
        ).rstrip()


def _describe_correction(correction: float) -> str:
    if correction == 1:
        return "No feedback has corrected it."
    return f"Feedback has multiplied the latest window's estimate by {correction:.2f}."


def _compare(item: VersionSummary) -> str:
    """Return whether the estimate agrees with the realised RMSE, as a sentence."""
    estimated, realised = item.estimated_rmse, item.realised
    if estimated is None or realised is None or realised.rmse.lower is None or realised.rmse.upper is None:
        return ""
    if estimated.upper < realised.rmse.lower:
        return "The estimate of all rows is below that interval."
    if estimated.lower > realised.rmse.upper:
        return "The estimate of all rows is above that interval."
    return "That interval and the range of the estimate of all rows overlap."


def _error_cells(item: VersionSummary) -> Sequence[str]:
    estimated, realised = item.estimated_rmse, item.realised
    expected = (
        (MISSING, MISSING)
        if estimated is None
        else (str(Measured(estimated.value, estimated.lower, estimated.upper)), f"{estimated.held_out_rmse:.3g}")
    )
    known = (
        (MISSING,) * 5
        if realised is None
        else (
            *(str(figure) for figure in (realised.rmse, realised.mean_error, realised.mae)),
            f"{realised.labels:,}",
            f"{realised.labels / item.rows:.1%}" if item.rows else MISSING,
        )
    )
    return version_text(item.key), *expected, *known


def _drift_section(data: PeriodData, report: MonitoringReport) -> Section:
    drift = data.windows.drift
    if not drift:
        return Section("Drift", "No window was compared with training rows: see Unknown.")
    rows = {item.key: item.rows for item in report.versions}
    bullets = [
        f"{version_text(key).capitalize()}: {item.drifted:,} of {item.windows:,} windows drifted"
        f" ({item.drifted / item.windows:.1%}). The windows have {item.rows:,} rows; the log has {rows[key]:,} of this period."
        for key, item in drift.items()
    ]
    columns = [
        (name, version_text(key), f"{loss / item.drifted:+.3f}", f"{item.contributions.get(name, 0.0):.1%}")
        for key, item in drift.items()
        for name, loss in sorted(item.columns.items(), key=lambda pair: -pair[1])[:MAX_COLUMNS]
    ]
    header = ("column", "version", "AUC without it falls by", "share of contributions to predictions")
    tables = [HtmlTable(header, columns, n_text_columns=2)] if columns else []
    return Section("Drift", DRIFT_TEXT, bullets, tables, [draw_drift(data)])


def _refused_section(report: MonitoringReport) -> Section:
    if report.refused_values is None or report.failed_requests is None:
        return Section("Refused values", "No monitor recorded them: see Unknown.")
    values = [(item.column, item.reason, f"{item.count:,}") for item in report.refused_values]
    requests = [(item.route, item.status, f"{item.count:,}") for item in report.failed_requests]
    tables = []
    if values:
        tables.append(HtmlTable(("column", "reason", "refused values"), values, n_text_columns=2))
    if requests:
        tables.append(HtmlTable(("route", "status", "requests with an error"), requests, n_text_columns=2))
    return Section("Refused values", REFUSED_TEXT if tables else f"{REFUSED_TEXT} There were none.", tables=tables)


def _decisions_section(decisions: Sequence[DecisionRecord] | None) -> Section:
    if decisions is None:
        return Section("Decisions", "The decision log cannot be read: see Unknown.")
    if not decisions:
        return Section("Decisions", "Nothing was decided in this period.")
    return Section(
        "Decisions", "Times are in UTC; the newest decision is first.", [_describe_decision(item) for item in decisions]
    )


def _describe_decision(item: DecisionRecord) -> str:
    notes = f"{', forced' if item.forced else ''}{'' if item.finished else ', interrupted'}"
    moved = f"version {item.previous_version or 'none'} to {item.requested_version or item.version or 'none'}"
    time = time_text(item.decided_at.timestamp())
    return f"{time}: {item.verdict} at {item.alias}, {moved}{notes}, by {item.actor}: {item.reason}"
