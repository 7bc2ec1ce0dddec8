"""What is written down: the outcome of a job, the decision of the gate."""

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from housing.evaluation.bootstrap import PairedDifference
    from housing.evaluation.results import Evaluation

PROMOTE, HOLD, REJECT, ROLLBACK = "PROMOTE", "HOLD", "REJECT", "ROLLBACK"


@dataclass(frozen=True)
class Check:
    """One thing that a challenger has to pass, whatever its score."""

    name: str
    actual: str
    limit: str
    passed: bool
    value: float | None = None


@dataclass
class Decision:  # pylint: disable=too-many-instance-attributes  # all that is kept of one
    """What was decided about an alias, and why. Metrics are those of the test rows."""

    run_id: str
    alias: str
    actor: str = ""
    previous_version: str | None = None  # the version at the alias before this decision
    champion: str = ""
    challenger_metrics: dict[str, float] = field(default_factory=dict)
    champion_metrics: dict[str, float] = field(default_factory=dict)
    test_rows: int = 0
    difference: "PairedDifference | None" = None
    checks: list[Check] = field(default_factory=list)
    verdict: str = HOLD
    reasons: list[str] = field(default_factory=list)
    force_reason: str = ""  # why the gate's verdict did not count
    version: str | None = None  # of the registered model, where the alias points to after this decision
    served_at: str = ""  # when a server first answered with the version
    evaluation: "Evaluation | None" = None  # in a file of its own

    @property
    def moves(self) -> bool:
        """Whether the alias moves."""
        return self.verdict in (PROMOTE, ROLLBACK)

    def to_json(self) -> str:
        """Give all of it but the honest evaluation as JSON."""
        return json.dumps({**asdict(self), "evaluation": None}, indent=2, allow_nan=False) + "\n"
