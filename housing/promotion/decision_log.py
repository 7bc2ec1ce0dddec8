"""The record of what was decided: a run for each decision, and what follows from them."""

import getpass
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from omegaconf import DictConfig

from housing.core.locks import claim
from housing.promotion.decision import PROMOTE, ROLLBACK, Decision
from housing.promotion.server_status import wait_for
from housing.tracking import tags as tracking
from housing.tracking.runs import Run, RunRecord
from housing.tracking.store import Store

FIGURES = "decision.json"


MANY = 10_000  # decisions that are looked through


@dataclass(frozen=True)
class Past:
    """A decision of the past. `before` and `version` are where the alias was, and where it was to go."""

    at: datetime
    finished: bool
    verdict: str
    alias: str
    before: str
    version: str
    by: str
    why: str
    forced: bool
    served: str
    metrics: dict[str, float]


@contextmanager
def one_at_a_time(cfg: DictConfig, store: Store) -> Iterator[None]:
    """Let nobody else on this machine decide about the model; wait where somebody does. What was cut off is closed."""
    with claim(f"{store.client.uri} {cfg.registered_model}", "promotions"):
        store.runs.close_dead(cfg.decisions)
        yield


def who(cfg: DictConfig) -> str:
    """Give who decides."""
    return str(cfg.by or getpass.getuser())


def keep(record: Run, decision: Decision) -> None:
    """Write a decision down, before anything follows from it."""
    tags = {
        tracking.ALIAS: decision.alias,
        tracking.ACTOR: decision.by,
        tracking.FROM: decision.before or "",
        tracking.TO: decision.version or "",
        tracking.REASON: "; ".join(decision.reasons)[:1000],
        tracking.FORCED: str(bool(decision.forced)).lower(),
        tracking.VERDICT: decision.verdict,
    }
    record.log(metrics=_metrics(decision), tags=tags)
    record.log_text(FIGURES, decision.to_json())


def _metrics(decision: Decision) -> dict[str, float]:
    metrics = {f"challenger_{name}": value for name, value in decision.challenger_metrics.items()}
    metrics |= {f"champion_{name}": value for name, value in decision.champion_metrics.items()}
    if decision.difference is not None:
        found = decision.difference
        metrics |= {"difference": found.value, "difference_low": found.low, "difference_high": found.high}
    return metrics


def carry_out(cfg: DictConfig, store: Store, record: Run, decision: Decision) -> None:
    """Write a decision down, then move the alias. Cut off anywhere, the alias is at one of the two versions."""
    name, alias, version = cfg.registered_model, decision.alias, decision.version
    assert version is not None
    keep(record, decision)
    if decision.verdict == PROMOTE:
        store.registry.tag_version(name, version, f"{tracking.DECISION}.{alias}", decision.to_json())
    store.registry.move_alias(name, alias, decision.before, version)


def look_at_server(cfg: DictConfig, store: Store, record: Run, decision: Decision) -> None:
    """Wait until the server that follows the alias answers with the version, and write down when it did."""
    if cfg.serve.url is None or decision.version is None:
        return
    served = wait_for(cfg.serve, cfg.registered_model, decision.alias, decision.version)
    decision.served = served.since
    decision.reasons.append(served.told)
    if served.since:
        record.log(tags={tracking.SERVED: served.since})
        store.registry.tag_version(cfg.registered_model, decision.version, f"{tracking.SERVED}.{decision.alias}", served.since)


def past(store: Store, experiment: str, alias: str | None = None, limit: int = MANY) -> list[Past]:
    """Give the decisions about an alias, or about all, newest first."""
    tags = {tracking.RUN_TYPE: "decision"} | ({tracking.ALIAS: alias} if alias else {})
    return [_past(run) for run in store.runs.find_latest(experiment, tags, limit)]


def _past(run: RunRecord) -> Past:
    tag = run.tags.get
    return Past(
        at=run.started_at,
        finished=run.status == "FINISHED",
        verdict=tag(tracking.VERDICT, "none"),
        alias=tag(tracking.ALIAS, ""),
        before=tag(tracking.FROM, ""),
        version=tag(tracking.TO, ""),
        by=tag(tracking.ACTOR, ""),
        why=tag(tracking.REASON, tag(tracking.ERROR, "")),
        forced=tag(tracking.FORCED) == "true",
        served=tag(tracking.SERVED, ""),
        metrics=run.metrics,
    )


def stood_before(newest_first: Sequence[Past], current: str) -> list[str]:
    """Give the versions that were at an alias before the current one, last first.

    What a rollback left behind is not among them, nor is what was decided and did not happen.
    """
    there: list[str] = []
    moves = _happened(newest_first, current)
    for move in moves:
        _put_on_top(there, move.before)  # it may have been moved by hand
        if move.verdict == ROLLBACK and move.version in there:
            del there[there.index(move.version) + 1 :]
        else:
            _put_on_top(there, move.version)
    _put_on_top(there, current)
    return there[-2::-1]


def _put_on_top(there: list[str], version: str) -> None:
    if version in there:
        there.remove(version)
    if version:
        there.append(version)


def _happened(newest_first: Sequence[Past], current: str) -> list[Past]:
    """Give the moves that happened, oldest first. Of one that was cut off, the next one says whether it did."""
    moves = [one for one in reversed(newest_first) if one.verdict in (PROMOTE, ROLLBACK)]
    then = [*(one.before for one in moves), current][1:]
    return [move for move, seen in zip(moves, then, strict=True) if move.finished or move.version == seen]


def rolled_back(newest_first: Sequence[Past], version: str, current: str) -> Past | None:
    """Give the rollback by which a version left an alias, where nothing else moved the alias away from it since."""
    left = (move for move in reversed(_happened(newest_first, current)) if move.before == version != move.version)
    last = next(left, None)
    return last if last is not None and last.verdict == ROLLBACK else None


def that_served(decisions: Sequence[Past]) -> set[str]:
    """Give the versions that a server answered with."""
    return {one.version for one in decisions if one.served}
