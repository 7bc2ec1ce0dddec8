"""What is written down: the outcome of a job, the decision of the gate."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from housing.files import written_whole

OUTCOME = "outcome.json"  # in a job's folder
PROMOTE, HOLD, REJECT = "PROMOTE", "HOLD", "REJECT"


@dataclass
class Outcome:
    """What came of a job. `metrics` are those of the validation rows and of speed."""

    overrides: list[str]
    status: str  # RUNNING, FINISHED, FAILED, KILLED when interrupted, or LOST where a job left no word
    run_id: str | None = None
    link: str = ""
    reused: bool = False
    metrics: dict[str, float] = field(default_factory=dict)
    error: str = ""

    def write(self, folder: Path) -> None:
        """Leave the outcome in the job's folder, where the sweep looks for it."""
        with written_whole(folder / OUTCOME) as partial:
            partial.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


@dataclass
class Decision:
    """What the gate decided about a run, and why. Metrics are those of the test rows."""

    run_id: str
    alias: str
    champion: str = ""
    challenger_metrics: dict[str, float] = field(default_factory=dict)
    champion_metrics: dict[str, float] = field(default_factory=dict)
    test_rows: int = 0
    verdict: str = HOLD
    reasons: list[str] = field(default_factory=list)
    version: str | None = None  # of the registered model, where the alias points to after this decision
