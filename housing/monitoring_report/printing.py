"""The printed summary of a monitoring report."""

from housing.command_line.console import create_console
from housing.monitoring_report.page import error_sentences
from housing.monitoring_report.summary import MonitoringReport
from housing.monitoring_report.unknown import version_text


def show_report(report: MonitoringReport) -> None:
    """Print the numbers, and what is unknown."""
    console = create_console()
    for line in summary_lines(report):
        console.print(line, soft_wrap=True)


def summary_lines(report: MonitoringReport) -> list[str]:
    """Return the summary, one statement in each line."""
    period = " to ".join(moment.isoformat(timespec="minutes") for moment in (report.since, report.until))
    lines = [f"{report.requests:,} requests with {report.rows:,} rows, {period}"]
    if report.latency_ms:
        lines.append(f"latency      {', '.join(f'{name} {figure} ms' for name, figure in report.latency_ms.items())}")
    for item in report.versions:
        lines += [f"error        {sentence}" for sentence in error_sentences(item)]
        if item.windows:
            lines.append(f"drift        {version_text(item.key)}: {item.drifted_windows:,} of {item.windows:,} windows drifted")
    if report.refused_values is not None:
        lines.append(f"refused      {sum(item.count for item in report.refused_values):,} values")
    if report.decisions is not None:
        lines.append(f"decisions    {len(report.decisions):,}")
    return [*lines, *(f"unknown      {sentence}" for sentence in report.unknown)]
