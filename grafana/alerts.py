"""What prometheus/alerts.yml says: panels show the thresholds that stand there."""

import re
from dataclasses import dataclass

import yaml

from housing.core.environment import PROJECT

ALERTS_FILE = PROJECT / "prometheus" / "alerts.yml"
COMPARISON = re.compile(r"\s*(==|>=|>)\s*([0-9.]+)$")
CONJUNCTION = re.compile(r"\s+and on \([a-z, ]+\)\s+")


@dataclass(frozen=True)
class Alert:
    """An alert: its conditions, all of which must hold, each a vector that is compared with a number."""

    name: str
    conditions: tuple[tuple[str, str, float], ...]
    runbook: str

    @property
    def comparison(self) -> str:
        """How the vector is compared with the threshold."""
        return self.conditions[0][1]

    @property
    def threshold(self) -> float:
        """The number that decides: the first."""
        return self.conditions[0][2]

    @property
    def expressions(self) -> list[str]:
        """What is compared, without the comparisons: it must always be there, or the alert is blind."""
        return [vector for vector, _, _ in self.conditions]


def read_alerts() -> dict[str, Alert]:
    """Give all alerts by name."""
    groups = yaml.safe_load(ALERTS_FILE.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: _parse_alert(rule) for group in groups for rule in group["rules"]}


def _parse_alert(rule: dict[str, str | dict[str, str]]) -> Alert:
    annotations = rule["annotations"]
    assert isinstance(annotations, dict)
    conditions = tuple(_parse_condition(part) for part in CONJUNCTION.split(str(rule["expr"])))
    return Alert(str(rule["alert"]), conditions, annotations["runbook_url"])


def _parse_condition(text: str) -> tuple[str, str, float]:
    found = COMPARISON.search(text)
    if found is None:
        raise ValueError(
            f"{ALERTS_FILE}: {text!r} ends with no comparison; allowed: VECTOR > NUMBER, and on (LABELS) VECTOR >= NUMBER"
        )
    return text[: found.start()], found[1], float(found[2])
