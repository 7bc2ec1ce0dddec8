"""The gate's decision: the verdict, the checks and scores behind it, and the version at the alias."""

import json
from dataclasses import asdict, dataclass, field
from typing import Self

from housing.evaluation.paired_test import PairedDifference
from housing.evaluation.results import Evaluation

PROMOTE, PENDING, HOLD, REJECT, ROLLBACK = "PROMOTE", "PENDING", "HOLD", "REJECT", "ROLLBACK"
CANARY, TAKE_BACK = "CANARY", "TAKE BACK"  # a version begins to answer a share of the requests, and no longer does


@dataclass(frozen=True)
class Check:
    """A requirement that a challenger must meet whatever its score."""

    name: str
    actual: str
    limit: str
    passed: bool
    value: float | None = None


@dataclass
class Decision:  # pylint: disable=too-many-instance-attributes  # one record of the decision log
    """A decision about an alias. All metrics are those of the test rows.

    Attributes
    ----------
    previous_version
        The version at the alias before this decision, or None if the alias was unset.
    version
        The version at the alias after this decision, or the one that becomes its canary.
    next_command
        The command that promotes against the verdict HOLD, or approves a request (PENDING), or "" if there is none.
    force_reason
        Why the alias moved against the gate's verdict, or "".
    served_at
        When the server first answered with the version, in ISO format, or "".
    requested_version
        The version that a second person must approve, or has approved; None if no approval is required.
    requested_by, request
        Of an approval: who requested it, and the id of that decision.
    bundle_sha256
        The checksum of the judged bundle's SHA256SUMS: only that bundle is signed. "" if none was judged.
    needs_signature
        Whether the person who requested an approval expects that the version is signed.
    signed_by
        The fingerprint of the key that signed the version, or "".
    evaluation
        The full evaluation, which is stored in a file of its own.
    """

    run_id: str
    alias: str
    actor: str = ""
    previous_version: str | None = None
    champion: str = ""
    challenger_metrics: dict[str, float] = field(default_factory=dict)
    champion_metrics: dict[str, float] = field(default_factory=dict)
    test_rows: int = 0
    difference: PairedDifference | None = None
    checks: list[Check] = field(default_factory=list)
    verdict: str = HOLD
    reasons: list[str] = field(default_factory=list)
    next_command: str = ""
    force_reason: str = ""
    version: str | None = None
    served_at: str = ""
    requested_version: str | None = None
    requested_by: str = ""
    request: str = ""
    bundle_sha256: str = ""
    needs_signature: bool = False
    signed_by: str = ""
    evaluation: Evaluation | None = None

    @property
    def moves(self) -> bool:
        """Whether the alias moves."""
        return self.verdict in (PROMOTE, ROLLBACK)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` has written."""
        content = json.loads(text)
        difference = None if content["difference"] is None else PairedDifference(**content["difference"])
        return cls(**{**content, "difference": difference, "checks": [Check(**check) for check in content["checks"]]})

    def to_json(self) -> str:
        """Return the decision without its evaluation as JSON text."""
        return json.dumps({**asdict(self), "evaluation": None}, indent=2, allow_nan=False) + "\n"
