"""Alerts as prometheus/alerts.yml defines them: panels show their thresholds."""

import re
from dataclasses import dataclass

import yaml

from housing.core.environment import PROJECT

ALERTS_FILE = PROJECT / "prometheus" / "alerts.yml"
COMPARISON = re.compile(r"\s*(==|>=|>)\s*([0-9.]+)$")
CONJUNCTION = re.compile(r"\s+and on \([a-z, ]+\)\s+")


@dataclass(frozen=True)
class Alert:
    """An alert and its conditions, all of which must hold; each compares a vector with a number."""

    name: str
    conditions: tuple[tuple[str, str, float], ...]
    runbook: str

    @property
    def comparison(self) -> str:
        """The operator of the first condition."""
        return self.conditions[0][1]

    @property
    def threshold(self) -> float:
        """The number of the first condition."""
        return self.conditions[0][2]

    @property
    def expressions(self) -> list[str]:
        """The vectors without their comparisons. Each must always have a value, or the alert can never fire."""
        return [vector for vector, _, _ in self.conditions]


def read_alerts() -> dict[str, Alert]:
    """Return all alerts by name."""
    groups = yaml.safe_load(ALERTS_FILE.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: _parse_alert(rule) for group in groups for rule in group["rules"]}


def _parse_alert(rule: dict[str, str | dict[str, str]]) -> Alert:
    annotations = rule["annotations"]
    assert isinstance(annotations, dict)
    conditions = tuple(_parse_condition(part) for part in CONJUNCTION.split(str(rule["expr"])))
    return Alert(str(rule["alert"]), conditions, annotations["runbook_url"])


def _parse_condition(text: str) -> tuple[str, str, float]:
    match = COMPARISON.search(text)
    if match is None:
        raise ValueError(
            f"{ALERTS_FILE}: {text!r} must end with a comparison, such as VECTOR > NUMBER, and on (LABELS) VECTOR >= NUMBER"
        )
    return text[: match.start()], match[1], float(match[2])
