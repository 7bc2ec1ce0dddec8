"""The monitoring report of a log: figures of all sources, and sentences about what is unknown and what to switch on."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from housing.bundle.bundle import Bundle
from housing.core.errors import ConfigError, HousingError
from housing.monitoring.analyses import create_analyses
from housing.monitoring.database import DATABASE_FILE, MonitorDatabase
from housing.monitoring.monitor import Monitor
from housing.monitoring.request_counters import DROPPED, REFUSED_VALUES, RequestCounter
from housing.monitoring_report.report import write_report
from housing.monitoring_report.summary import MonitoringReport
from server.core.settings import Settings
from tests.support.feedback import append
from tests.support.monitoring import WINDOW_ROWS, log_true_values, monitor_settings
from tests.support.tables import config, rentals_frame

N_ROWS = 2 * WINDOW_ROWS
LOG = "predictions-0"


def report(folder: Path, *overrides: str) -> tuple[MonitoringReport, str]:
    """Write the report about the log in a folder, and return it with the text of its page."""
    out = folder / "page.html"
    written = write_report(config("monitor", "data=rentals", f"log_dir={folder}/log", f"out={out}", *overrides))
    assert written.page == out
    return written, out.read_text(encoding="utf-8")


def requests(bundle: Bundle, count: int, **fields: Any) -> list[dict[str, Any]]:
    """Return entries of the prediction log with one row each, within the last hour."""
    columns = [column.name for column in bundle.schema.features]
    records = json.loads(rentals_frame(count, seed=9)[columns].to_json(orient="records"))
    predictions = bundle.predict(bundle.schema.encode_records(records)).tolist()
    start = time.time() - 3000
    return [
        {
            "id": f"{int(1000 * (start + index)):012x}-00-{index:08x}",
            "time": start + index,
            "route": "/predict",
            "version": "1",
            "latency_ms": 2.0,
            "columns": columns,
            "rows": [list(record.values())],
            "predictions": [prediction],
            **fields,
        }
        for index, (record, prediction) in enumerate(zip(records, predictions, strict=True))
    ]


@pytest.fixture(name="settings")
def fixture_settings(tmp_path: Path, bundle: Bundle, served_home: Path) -> Settings:  # pylint: disable=unused-argument  # a store
    """The settings of a server with a published version, and with a log of its requests."""
    settings = monitor_settings(tmp_path, bundle)
    append(settings.log_dir, LOG, *requests(bundle, N_ROWS))
    return settings


@pytest.fixture(name="folder")
def fixture_folder(settings: Settings) -> Path:
    """The folder of the server."""
    return settings.log_dir.parent


def test_the_page_shows_all_sources(folder: Path, bundle: Bundle, settings: Settings) -> None:
    Monitor(settings, folder / "metrics", create_analyses(settings)).step()
    entries = requests(bundle, 60)
    log_true_values(folder, entries, [entry["predictions"][0] - 7.0 for entry in entries])
    hour = int(time.time() // 3600 * 3600)
    refused = {RequestCounter(REFUSED_VALUES, ("area", "bounds")).to_key(): 4.0, RequestCounter(DROPPED).to_key(): 2.0}
    database = MonitorDatabase(folder / "log")
    database.add_increases(hour, refused)
    database.close()
    written, page = report(folder)
    (version,) = written.versions
    assert (written.requests, written.rows, version.windows, version.drifted_windows) == (N_ROWS, N_ROWS, 2, 0)
    assert version.estimated_rmse is not None and version.realised is not None
    assert version.estimated_rmse.lower < version.estimated_rmse.value < version.estimated_rmse.upper
    assert version.realised.labels == 60 and version.realised.rmse.value == pytest.approx(7.0)
    assert written.latency_ms["p99"].value == pytest.approx(2.0, rel=0.01)
    assert [(item.column, item.count) for item in written.refused_values or ()] == [("area", 4)]
    assert [item.verdict for item in written.decisions or ()] == ["PROMOTE"]
    assert page.count("<svg") == 4
    assert {"Unknown", "Traffic and latency", "Errors", "Drift", "Refused values", "Decisions"} == set(
        re.findall("<h2>(.*?)</h2>", page)
    )
    assert "2 predictions are missing from the log" in page and "realised RMSE of 60 rows with true values is 7 (7 to 7)" in page
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", page), "the page loads nothing"


def test_a_page_without_monitor_and_feedback_says_what_to_switch_on(folder: Path) -> None:
    written, page = report(folder)
    assert written.refused_values is None and written.versions[0].estimated_rmse is None
    sentences = " ".join(written.unknown)
    assert "the server has no monitor. Start it with one: python -m housing.serve serve.monitor=true" in sentences
    assert "no true value has arrived for a request of this period. Send them to POST /feedback" in sentences
    assert "are not in the log: the server began then, or older files were removed" in sentences
    assert "see Unknown" in page and page.count("<svg") == 2


def test_a_monitor_whose_windows_are_not_full_says_so(folder: Path) -> None:
    MonitorDatabase(folder / "log").close()
    assert "no window of rows was full" in " ".join(report(folder)[0].unknown)


def test_few_true_values_have_no_interval(folder: Path, bundle: Bundle) -> None:
    entries = requests(bundle, 3)
    log_true_values(folder, entries, [0.0] * 3)
    append(folder / "log", "joined", "damaged")
    written, page = report(folder)
    sentences = " ".join(written.unknown)
    assert (
        "its 3 true values are of 3 requests. Intervals need 30." in sentences and "1 damaged lines with true values" in sentences
    )
    assert "too little data for an interval" in page


def test_unreadable_sources_are_named_and_the_rest_is_shown(folder: Path) -> None:
    (folder / "log" / DATABASE_FILE).write_bytes(b"damaged" * 1000)
    written, page = report(folder, "mlflow.tracking_uri=sqlite:////nowhere/mlflow.db")
    sentences = " ".join(written.unknown)
    assert "Drift, estimated errors and refused values are unknown" in sentences and "file is not a database" in sentences
    assert "Decisions are unknown: There is no MLflow store at /nowhere/mlflow.db" in sentences
    assert written.decisions is None and "The decision log cannot be read" in page
    assert written.requests == N_ROWS


def test_a_report_is_of_its_period_version_and_model(folder: Path, bundle: Bundle) -> None:
    append(folder / "log", LOG, *requests(bundle, 5, version="2"), *requests(bundle, 7, version="3", name="homes@production"))
    assert report(folder, "version=2")[0].requests == 5
    named, page = report(folder, "name=homes@production")
    assert [(item.model, item.version, item.requests) for item in named.versions] == [("homes@production", "3", 7)]
    assert "version 3 of homes@production" in page
    past, page = report(folder, "since=2025-01-01", "until=2025-02-01")
    assert (past.requests, past.latency_ms, past.versions, list(past.decisions or ())) == (0, {}, [], [])
    assert "The log has no request of this period" in page and "Nothing was decided in this period" in page


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (("log_dir=/nowhere",), HousingError, "log_dir=/nowhere has no prediction log"),
        (("since=lately",), ConfigError, "since must be a time such as 2026-11-24"),
        (("since=1h", "until=2h"), ConfigError, "since must be before until"),
    ],
)
def test_a_report_that_cannot_be_written_is_refused(
    folder: Path, overrides: tuple[str, ...], error: type[HousingError], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        report(folder, *overrides)
