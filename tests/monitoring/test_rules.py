"""Recording rules, alerts, runbook and dashboards are consistent and pass promtool and amtool."""

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana import alerts, generate
from grafana.panels import MIN_THRESHOLD
from grafana.prometheus_api import read_panels
from housing.core.environment import PROJECT
from tests.support import prometheus as prometheus_support
from tests.support.waiting import wait_for

FOLDER = PROJECT / "prometheus"
TESTS = sorted((FOLDER / "tests").glob("*.yml"))
ALERTS = alerts.read_alerts()
SEVERITY = {
    rule["alert"]: rule["labels"]["severity"]
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
}
DASHBOARDS = sorted(generate.DASHBOARD_DIR.glob("*.json"))
RULES = [
    rule for group in yaml.safe_load((FOLDER / "rules.yml").read_text(encoding="utf-8"))["groups"] for rule in group["rules"]
]
CASES = [case for path in TESTS for case in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]]


def assert_passes(*command: str) -> None:
    """Check that a command of Prometheus or Alertmanager succeeds."""
    if not prometheus_support.is_installed():
        pytest.skip(prometheus_support.HINT)
    process = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr


def test_promtool_accepts_the_prometheus_config() -> None:
    assert_passes("promtool", "check", "config", "prometheus.yml")


def test_amtool_accepts_the_alertmanager_config() -> None:
    assert_passes("amtool", "check-config", "alertmanager.yml")


def request_json(url: str, body: object = None) -> Any:
    """Send a GET request, or a POST request with a JSON body, to Alertmanager."""
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.loads(response.read() or "null")


def test_housing_down_inhibits_warnings_until_it_is_resolved(tmp_path: Path) -> None:
    if not prometheus_support.is_installed():
        pytest.skip(prometheus_support.HINT)
    warnings = {name for name, severity in SEVERITY.items() if severity == "warning"}
    with (
        prometheus_support.receiver() as receiver,
        prometheus_support.alertmanager(prometheus_support.fast_config(tmp_path), receiver.url) as address,
    ):
        url = f"http://{address}/api/v2/alerts"

        def send_alerts(names: Iterable[str], **ends: str) -> None:
            request_json(url, [{"labels": {"alertname": name, "severity": SEVERITY[name]}, **ends} for name in names])

        def suppressed() -> set[str]:
            return {alert["labels"]["alertname"] for alert in request_json(url) if alert["status"]["inhibitedBy"]}

        send_alerts(["HousingDown"])
        wait_for(lambda: bool(receiver.firing("HousingDown")), "HousingDown is sent")
        send_alerts(warnings)
        wait_for(lambda: suppressed() == warnings, "warnings are suppressed")
        send_alerts(["HousingNotReady"])
        wait_for(lambda: bool(receiver.firing("HousingNotReady")), "an alert of the same severity is sent")
        assert [name for name in warnings if receiver.firing(name)] == []
        send_alerts(["HousingDown"], endsAt=datetime.now(UTC).isoformat())
        wait_for(lambda: all(map(receiver.firing, warnings)), "the warnings are sent")


def test_rules_and_alerts_pass_their_promtool_tests() -> None:
    assert_passes("promtool", "test", "rules", *map(str, TESTS))


@pytest.mark.parametrize("name", sorted({rule["record"] for rule in RULES}))
def test_each_rule_has_a_test(name: str) -> None:
    matching = [test for case in CASES for test in case.get("promql_expr_test", ()) if re.search(rf"{name}\b", test["expr"])]
    assert any(test["exp_samples"] for test in matching)


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_has_a_firing_and_a_silent_test_case(name: str) -> None:
    expected = [test["exp_alerts"] for case in CASES for test in case.get("alert_rule_test", ()) if test["alertname"] == name]
    assert any(expected)
    assert not all(expected)


@pytest.mark.parametrize("alert", ALERTS.values(), ids=lambda alert: alert.name)
def test_each_alert_links_to_a_complete_runbook_section(alert: alerts.Alert) -> None:
    path, _, anchor = alert.runbook.partition("#")
    sections = re.split(r"^## ", (PROJECT / path).read_text(encoding="utf-8"), flags=re.MULTILINE)
    (section,) = [section for section in sections if section.partition("\n")[0].lower() == anchor]
    assert anchor == alert.name.lower()
    assert re.findall(r"\*\*(\w+ ?\w*):\*\*", section) == ["Means", "Look at", "Do"]


def test_runbook_sections_are_those_of_the_alerts_in_order() -> None:
    documented = re.findall(
        r"^## (\w+)$", (PROJECT / "docs" / "how-to" / "runbook.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert documented == list(ALERTS)


def test_dashboard_files_are_up_to_date() -> None:
    assert not generate.outdated(), "update them with scripts/dashboards"


def test_edited_and_orphaned_dashboard_files_are_outdated(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "DASHBOARD_DIR", tmp_path)
    generate.write_dashboards()
    assert not generate.outdated()
    edited, orphan = tmp_path / "drift.json", tmp_path / "orphan.json"
    edited.write_text(edited.read_text(encoding="utf-8").replace("0.2", "0.3"), encoding="utf-8")
    orphan.write_text("{}", encoding="utf-8")
    assert generate.outdated() == [edited, orphan]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_each_panel_has_a_unique_title_a_description_and_a_unit(path: Any) -> None:
    shown = [panel for panel in read_panels(path) if panel["type"] != "row"]
    for panel in shown:
        assert panel["title"] and panel["description"] and panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {data_source_uid()}
    assert len({panel["title"] for panel in shown}) == len(shown)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_have_every_variable_of_their_queries(path: Any) -> None:
    variables = {variable["name"]: variable for variable in json.loads(path.read_text(encoding="utf-8"))["templating"]["list"]}
    assert {"version", "instance"} <= set(variables)
    queries = " ".join(target["expr"] for panel in read_panels(path) for target in panel.get("targets", ()))
    assert set(re.findall(r"\$(\w+)", queries)) - {"__rate_interval"} <= set(variables)


def test_dashboards_show_the_thresholds_of_the_alerts() -> None:
    for alert in ALERTS.values():
        shown = [
            panel for path in DASHBOARDS for panel in read_panels(path) if f"Alert {alert.name} " in panel.get("description", "")
        ]
        assert shown or alert.name == "HousingInstanceDown", alert.name
        for panel in shown:
            _, step = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
            assert step["value"] == {"==": alert.threshold + 1, ">": alert.threshold or MIN_THRESHOLD}[alert.comparison]
            assert alert.runbook in panel["description"]
            assert [link["url"] for link in panel["links"]] == [alert.runbook]


def data_source_uid() -> str:
    """Return the uid of the provisioned Grafana data source."""
    text = (PROJECT / "grafana" / "provisioning" / "datasources" / "prometheus.yaml").read_text(encoding="utf-8")
    (source,) = yaml.safe_load(text)["datasources"]
    return str(source["uid"])
