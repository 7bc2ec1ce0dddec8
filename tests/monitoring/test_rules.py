"""Rules, alerts, runbook and dashboards fit together, and pass the tests of Prometheus' own tools."""

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
from tests.support import prometheus as watching
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


def passes(*command: str) -> None:
    """A tool finds nothing wrong."""
    if not watching.there():
        pytest.skip(watching.HINT)
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_configuration() -> None:
    passes("promtool", "check", "config", "prometheus.yml")


def test_alertmanager_takes_its_configuration() -> None:
    passes("amtool", "check-config", "alertmanager.yml")


def ask(url: str, body: object = None) -> Any:
    """Send JSON to Alertmanager, or just ask it."""
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read() or "null")


def test_where_no_server_answers_alertmanager_tells_of_nothing_less_until_one_does(tmp_path: Path) -> None:
    if not watching.there():
        pytest.skip(watching.HINT)
    warnings = {name for name, severity in SEVERITY.items() if severity == "warning"}
    with watching.receiver() as told, watching.alertmanager(watching.hurried(tmp_path), told.url) as address:
        url = f"http://{address}/api/v2/alerts"

        def raised(names: Iterable[str], **ends: str) -> None:
            ask(url, [{"labels": {"alertname": name, "severity": SEVERITY[name]}, **ends} for name in names])

        def suppressed() -> set[str]:
            return {one["labels"]["alertname"] for one in ask(url) if one["status"]["inhibitedBy"]}

        raised(["HousingDown"])
        wait_for(lambda: bool(told.told("HousingDown")), "it is told")
        raised(warnings)
        wait_for(lambda: suppressed() == warnings, "warnings are suppressed")
        raised(["HousingNotReady"])
        wait_for(lambda: bool(told.told("HousingNotReady")), "what is as grave is told")
        assert [name for name in warnings if told.told(name)] == []
        raised(["HousingDown"], endsAt=datetime.now(UTC).isoformat())
        wait_for(lambda: all(map(told.told, warnings)), "they are told now")


def test_rules_give_what_their_tests_expect() -> None:
    passes("promtool", "test", "rules", *map(str, TESTS))


@pytest.mark.parametrize("name", sorted({rule["record"] for rule in RULES}))
def test_each_rule_has_a_test(name: str) -> None:
    asked = [test for case in CASES for test in case.get("promql_expr_test", ()) if re.search(rf"{name}\b", test["expr"])]
    assert any(test["exp_samples"] for test in asked)


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_is_tested_raised_and_not_raised(name: str) -> None:
    expected = [test["exp_alerts"] for case in CASES for test in case.get("alert_rule_test", ()) if test["alertname"] == name]
    assert any(expected)
    assert not all(expected)


@pytest.mark.parametrize("alert", ALERTS.values(), ids=lambda alert: alert.name)
def test_each_alert_leads_to_its_section_of_the_runbook(alert: alerts.Alert) -> None:
    path, _, anchor = alert.runbook.partition("#")
    sections = re.split(r"^## ", (PROJECT / path).read_text(encoding="utf-8"), flags=re.MULTILINE)
    (section,) = [section for section in sections if section.partition("\n")[0].lower() == anchor]
    assert anchor == alert.name.lower()
    assert re.findall(r"\*\*(\w+ ?\w*):\*\*", section) == ["Means", "Look at", "Do"]


def test_the_runbook_has_no_section_of_an_alert_that_is_gone() -> None:
    named = re.findall(
        r"^## (\w+)$", (PROJECT / "docs" / "how-to" / "runbook.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert named == list(ALERTS)


def test_dashboards_are_as_their_description_says() -> None:
    assert not generate.outdated(), "write them again: scripts/dashboards"


def test_a_dashboard_that_was_edited_by_hand_is_stale(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "DASHBOARD_DIR", tmp_path)
    generate.write_dashboards()
    assert not generate.outdated()
    edited, left = tmp_path / "drift.json", tmp_path / "left.json"
    edited.write_text(edited.read_text(encoding="utf-8").replace("0.2", "0.3"), encoding="utf-8")
    left.write_text("{}", encoding="utf-8")
    assert generate.outdated() == [edited, left]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_each_panel_says_what_it_shows(path: Any) -> None:
    shown = [panel for panel in read_panels(path) if panel["type"] != "row"]
    for panel in shown:
        assert panel["title"] and panel["description"] and panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {source_uid()}
    assert len({panel["title"] for panel in shown}) == len(shown)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_version_and_instance_can_be_chosen(path: Any) -> None:
    variables = {variable["name"]: variable for variable in json.loads(path.read_text(encoding="utf-8"))["templating"]["list"]}
    assert {"version", "instance"} <= set(variables)
    asked = " ".join(target["expr"] for panel in read_panels(path) for target in panel.get("targets", ()))
    assert set(re.findall(r"\$(\w+)", asked)) - {"__rate_interval"} <= set(variables)


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


def source_uid() -> str:
    """The uid of the data source that Grafana is given."""
    text = (PROJECT / "grafana" / "provisioning" / "datasources" / "prometheus.yaml").read_text(encoding="utf-8")
    (source,) = yaml.safe_load(text)["datasources"]
    return str(source["uid"])
