"""The judge of a canary: looks at true values, failures and latencies, and lets it take over or takes it back by the rules.

Everything that it knows is in the registry and in the server's log folder. A judge that is killed begins again, and comes to the
same result.
"""

import math
import time
from dataclasses import dataclass, field

from housing.bundle.bundle import Bundle
from housing.command_line.next_command import next_command
from housing.core.canary import Canary
from housing.core.errors import HousingError
from housing.core.files import short_path
from housing.evaluation.bootstrap import compute_score
from housing.evaluation.sequential_test import BETTER, NOT_WORSE, UNDECIDED, judge_errors
from housing.promotion import canary as canary_decisions
from housing.promotion import decision_log
from housing.promotion.decision import Decision
from housing.tracking.store import Store
from housing.traffic.canary_errors import PairedErrors, read_paired_errors
from housing.traffic.canary_requests import CanaryRequests
from housing.traffic.canary_settings import CanarySettings

NO_CANARY, ENDED_BY_HAND = "none", "ended by hand"


@dataclass(frozen=True)
class CanaryFigures:  # pylint: disable=too-many-instance-attributes  # one for each figure of the printed table
    """How a canary does beside its champion.

    Attributes
    ----------
    hours
        The time since it began.
    requests, champion_requests, failures, champion_failures
        Requests that each of them answered, and those that ended with status 500.
    compared, slow
        Requests of the canary whose latency is compared, and those of them that took too long.
    labels, groups, refused
        True values, the independent groups of them, and those whose row one of the two refuses.
    error, champion_error
        RMSE or MAE on the true values; NaN without any.
    """

    hours: float = 0.0
    requests: int = 0
    champion_requests: int = 0
    failures: int = 0
    champion_failures: int = 0
    compared: int = 0
    slow: int = 0
    labels: int = 0
    groups: int = 0
    refused: int = 0
    error: float = math.nan
    champion_error: float = math.nan


@dataclass(frozen=True)
class Judgement:
    """The result of a look at a canary.

    Attributes
    ----------
    verdict
        "better", "not worse", "worse", "fails", "slow", "ended by hand", "undecided", or "none" without a canary.
    reasons
        The verdict in sentences.
    decision
        The decision that followed, or None.
    """

    alias: str
    version: str | None = None
    champion: str | None = None
    share: float = 0.0
    verdict: str = NO_CANARY
    reasons: list[str] = field(default_factory=list)
    figures: CanaryFigures = field(default_factory=CanaryFigures)
    decision: Decision | None = None


class CanaryJudge:
    """Looks at the canary of an alias. The bundles, and the read lines of the log, are kept between two looks."""

    def __init__(self, settings: CanarySettings, store: Store) -> None:
        self._settings, self._store = settings, store
        self._canary: Canary | None = None
        self._bundles: tuple[Bundle, Bundle] | None = None
        self._requests: CanaryRequests | None = None

    def look(self) -> Judgement:
        """Judge the canary, and record and apply the decision that the rules allow. Raises HousingError."""
        alias, registry = self._settings.alias, self._store.registry
        canary = registry.canary_at(alias.registered_model, alias.name)
        if canary is None:
            canary_decisions.remove_ended(alias, self._store)
            self._canary = None
            return Judgement(alias.name)
        if self._settings.take_back_reason:
            figures, verdict, reasons = CanaryFigures(), ENDED_BY_HAND, [self._settings.take_back_reason]
        else:
            figures, verdict, reasons = self._judge(canary)
        decision = self._decide(canary, figures, verdict, reasons)
        return Judgement(alias.name, canary.version, canary.champion, canary.share, verdict, reasons, figures, decision)

    def _judge(self, canary: Canary) -> tuple[CanaryFigures, str, list[str]]:
        """Return the figures, the verdict and the reasons for it."""
        settings = self._settings
        if not settings.log_dir.is_dir():  # without it, the canary would be undecided forever
            raise HousingError(
                f"The log folder {short_path(settings.log_dir)} does not exist. Start the server, which creates it:"
                f" {next_command('serve')}, or set log_dir to the log folder of the server."
            )
        requests, (canary_bundle, champion_bundle) = self._follow(canary)
        requests.read()
        folder = settings.log_dir / self._name
        errors = read_paired_errors(folder if folder.is_dir() else settings.log_dir, canary, canary_bundle, champion_bundle)
        result = judge_errors(settings.errors, errors.canary, errors.champion, errors.units)
        figures = self._figures(canary, requests, errors, result.units)
        verdict, reason = requests.judge(settings.requests)
        if verdict:
            return figures, verdict, [reason]
        after = "" if result.after is None else f", after {result.after:,} independent groups of true values"
        return figures, result.verdict, [f"the canary is {result.verdict}{after}", self._describe(figures, canary)]

    def _follow(self, canary: Canary) -> tuple[CanaryRequests, tuple[Bundle, Bundle]]:
        """Return the reader of the log, and the bundles of the canary and its champion. A new canary begins anew."""
        if canary != self._canary or self._requests is None or self._bundles is None:
            self._bundles = self._read_bundle(canary.version), self._read_bundle(canary.champion)
            ratio = self._settings.requests.latency_ratio
            self._requests = CanaryRequests(self._settings.log_dir, self._name, canary, ratio)
            self._canary = canary
        return self._requests, self._bundles

    def _read_bundle(self, version: str) -> Bundle:
        with self._store.artifacts.bundle(f"models:/{self._settings.alias.registered_model}/{version}") as folder:
            return Bundle.read(folder)

    @property
    def _name(self) -> str:
        """The name under which a server of several models serves this one."""
        return f"{self._settings.alias.registered_model}@{self._settings.alias.name}"

    def _figures(self, canary: Canary, requests: CanaryRequests, errors: PairedErrors, groups: int) -> CanaryFigures:
        metric, has_labels = self._settings.errors.metric, len(errors.canary) > 0
        return CanaryFigures(
            hours=(time.time() - canary.since) / 3600,
            requests=requests.requests[canary.version],
            champion_requests=requests.requests[canary.champion],
            failures=requests.failures[canary.version],
            champion_failures=requests.failures[canary.champion],
            compared=requests.compared,
            slow=requests.slow,
            labels=len(errors.canary),
            groups=groups,
            refused=errors.refused,
            error=compute_score(errors.canary, metric) if has_labels else math.nan,
            champion_error=compute_score(errors.champion, metric) if has_labels else math.nan,
        )

    def _describe(self, figures: CanaryFigures, canary: Canary) -> str:
        if not figures.labels:
            return "no true value is known yet of a request since it began"
        return (
            f"its {self._settings.errors.metric.upper()} is {figures.error:.4g}, against {figures.champion_error:.4g} of version"
            f" {canary.champion}, on {figures.labels:,} true values"
        )

    def _decide(self, canary: Canary, figures: CanaryFigures, verdict: str, reasons: list[str]) -> Decision | None:
        """Record and apply the decision that follows from a verdict, if one does and the canary is still the same."""
        settings, alias = self._settings, self._settings.alias
        takes_over = verdict in (BETTER, NOT_WORSE)
        if verdict == UNDECIDED:
            return None
        if takes_over and 3600 * figures.hours < settings.min_seconds:
            reasons.append(f"it takes over after {settings.min_seconds / 3600:g} hours at the earliest (rules.min_hours)")
            return None
        with decision_log.exclusive(alias, self._store):
            if self._store.registry.canary_at(alias.registered_model, alias.name) != canary:
                return None
            decide = canary_decisions.take_over if takes_over else canary_decisions.take_back
            return decide(alias, self._store, canary, [*reasons])
