"""The monitoring report: reads all sources of a period and writes the page."""

from datetime import UTC, datetime
from pathlib import Path

from omegaconf import DictConfig

from housing.data.settings import parse_schema
from housing.monitoring_report.page import build_page
from housing.monitoring_report.period_data import read_period
from housing.monitoring_report.settings import ReportSettings
from housing.monitoring_report.summary import MonitoringReport, summarise
from housing.monitoring_report.unknown import list_unknown
from housing.plots.html import write_page
from housing.reports.page import TEMPLATE

REPORTS = "monitoring"  # folder of the pages, below outputs
TIME_FORMAT = "%Y%m%dT%H%M%SZ"


def write_report(cfg: DictConfig) -> MonitoringReport:
    """Write the page about a period, and return its numbers.

    Raises
    ------
    ConfigError
        If a time is invalid, or the table is declared wrongly.
    HousingError
        If the log folder does not exist or has no prediction log.
    """
    settings, target = ReportSettings.from_config(cfg), parse_schema(cfg.data).target
    data = read_period(cfg, settings)
    subject = settings.name or cfg.registered_model
    report = summarise(data, list_unknown(data), _path(cfg, subject, settings))
    title = f"{subject} at alias {cfg.serve.alias}" if settings.name is None and not cfg.serve.models else subject
    if settings.version is not None:
        title = f"{title}, version {settings.version}"
    write_page(TEMPLATE, report.page, page=build_page(data, report, f"{title}: monitoring report", target))
    return report


def _path(cfg: DictConfig, subject: str, settings: ReportSettings) -> Path:
    ends = (datetime.fromtimestamp(moment, UTC) for moment in (settings.timeline.since, settings.timeline.until))
    file = "-".join([subject, *(end.strftime(TIME_FORMAT) for end in ends)])
    return Path(cfg.out or Path(cfg.paths.outputs) / REPORTS / f"{file}.html")
