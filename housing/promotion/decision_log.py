"""The record of what was decided: a run for each decision, and what follows from them."""

import getpass
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from omegaconf import DictConfig

from housing.core.locks import machine_lock
from housing.promotion.decision import PROMOTE, ROLLBACK, Decision
from housing.promotion.server_status import wait_for_version
from housing.tracking import tags as tracking
from housing.tracking.runs import Run, RunRecord
from housing.tracking.store import Store

DECISION_FILE = "decision.json"


HISTORY_LIMIT = 10_000  # decisions that are looked through


@dataclass(frozen=True)
class DecisionRecord:
    """A decision of the past. `before` and `version` are where the alias was, and where it was to go."""

    decided_at: datetime
    finished: bool
    verdict: str
    alias: str
    previous_version: str
    version: str
    actor: str
    reason: str
    forced: bool
    served_at: str
    metrics: dict[str, float]


@contextmanager
def exclusive(cfg: DictConfig, store: Store) -> Iterator[None]:
    """Let nobody else on this machine decide about the model; wait where somebody does. What was cut off is closed."""
    with machine_lock(f"{store.client.uri} {cfg.registered_model}", "promotions"):
        store.runs.close_dead(cfg.decisions_experiment)
        yield


def current_user(cfg: DictConfig) -> str:
    """Give who decides."""
    return str(cfg.actor or getpass.getuser())


def save_decision(record: Run, decision: Decision) -> None:
    """Write a decision down, before anything follows from it."""
    tags = {
        tracking.ALIAS: decision.alias,
        tracking.ACTOR: decision.actor,
        tracking.FROM: decision.previous_version or "",
        tracking.TO: decision.version or "",
        tracking.REASON: "; ".join(decision.reasons)[:1000],
        tracking.FORCED: str(bool(decision.force_reason)).lower(),
        tracking.VERDICT: decision.verdict,
    }
    record.log(metrics=_metrics(decision), tags=tags)
    record.log_text(DECISION_FILE, decision.to_json())


def _metrics(decision: Decision) -> dict[str, float]:
    metrics = {f"challenger_{name}": value for name, value in decision.challenger_metrics.items()}
    metrics |= {f"champion_{name}": value for name, value in decision.champion_metrics.items()}
    if decision.difference is not None:
        found = decision.difference
        metrics |= {"difference": found.difference, "difference_lower": found.lower, "difference_upper": found.upper}
    return metrics


def apply_decision(cfg: DictConfig, store: Store, record: Run, decision: Decision) -> None:
    """Write a decision down, then move the alias. Cut off anywhere, the alias is at one of the two versions."""
    name, alias, version = cfg.registered_model, decision.alias, decision.version
    assert version is not None
    save_decision(record, decision)
    if decision.verdict == PROMOTE:
        store.registry.tag_version(name, version, f"{tracking.DECISION}.{alias}", decision.to_json())
    store.registry.move_alias(name, alias, decision.previous_version, version)


def wait_for_server(cfg: DictConfig, store: Store, record: Run, decision: Decision) -> None:
    """Wait until the server that follows the alias answers with the version, and write down when it did."""
    if cfg.serve.url is None or decision.version is None:
        return
    served = wait_for_version(cfg.serve, cfg.registered_model, decision.alias, decision.version)
    decision.served_at = served.since
    decision.reasons.append(served.message)
    if served.since:
        record.log(tags={tracking.SERVED: served.since})
        store.registry.tag_version(cfg.registered_model, decision.version, f"{tracking.SERVED}.{decision.alias}", served.since)


def list_decisions(store: Store, experiment: str, alias: str | None = None, limit: int = HISTORY_LIMIT) -> list[DecisionRecord]:
    """Give the decisions about an alias, or about all, newest first."""
    tags = {tracking.RUN_TYPE: "decision"} | ({tracking.ALIAS: alias} if alias else {})
    return [_to_record(run) for run in store.runs.find_latest(experiment, tags, limit)]


def _to_record(run: RunRecord) -> DecisionRecord:
    tag = run.tags.get
    return DecisionRecord(
        decided_at=run.started_at,
        finished=run.status == "FINISHED",
        verdict=tag(tracking.VERDICT, "none"),
        alias=tag(tracking.ALIAS, ""),
        previous_version=tag(tracking.FROM, ""),
        version=tag(tracking.TO, ""),
        actor=tag(tracking.ACTOR, ""),
        reason=tag(tracking.REASON, tag(tracking.ERROR, "")),
        forced=tag(tracking.FORCED) == "true",
        served_at=tag(tracking.SERVED, ""),
        metrics=run.metrics,
    )


def previous_versions(newest_first: Sequence[DecisionRecord], current: str) -> list[str]:
    """Give the versions that were at an alias before the current one, last first.

    What a rollback left behind is not among them, nor is what was decided and did not happen.
    """
    there: list[str] = []
    moves = _completed_moves(newest_first, current)
    for move in moves:
        _push(there, move.previous_version)  # it may have been moved by hand
        if move.verdict == ROLLBACK and move.version in there:
            del there[there.index(move.version) + 1 :]
        else:
            _push(there, move.version)
    _push(there, current)
    return there[-2::-1]


def _push(stack: list[str], version: str) -> None:
    if version in stack:
        stack.remove(version)
    if version:
        stack.append(version)


def _completed_moves(newest_first: Sequence[DecisionRecord], current: str) -> list[DecisionRecord]:
    """Give the moves that happened, oldest first. Of one that was cut off, the next one says whether it did."""
    moves = [one for one in reversed(newest_first) if one.verdict in (PROMOTE, ROLLBACK)]
    then = [*(one.previous_version for one in moves), current][1:]
    return [move for move, seen in zip(moves, then, strict=True) if move.finished or move.version == seen]


def find_rollback(newest_first: Sequence[DecisionRecord], version: str, current: str) -> DecisionRecord | None:
    """Give the rollback by which a version left an alias, where nothing else moved the alias away from it since."""
    left = (
        move for move in reversed(_completed_moves(newest_first, current)) if move.previous_version == version != move.version
    )
    last = next(left, None)
    return last if last is not None and last.verdict == ROLLBACK else None


def served_versions(decisions: Sequence[DecisionRecord]) -> set[str]:
    """Give the versions that a server answered with."""
    return {one.version for one in decisions if one.served_at}
