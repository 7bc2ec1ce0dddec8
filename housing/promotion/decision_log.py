"""The decision log: one MLflow run for each decision, and the moves of the alias that follow from them."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from housing.command_line.next_command import next_command
from housing.core.errors import HousingError
from housing.core.locks import machine_lock
from housing.promotion.decision import PROMOTE, ROLLBACK, TAKE_BACK, Decision
from housing.promotion.server_status import wait_for_version
from housing.promotion.settings import AliasSettings
from housing.promotion.version_text import describe_move
from housing.server_files.signatures import TAG_PREFIX
from housing.tracking import tags
from housing.tracking.runs import Run, RunRecord
from housing.tracking.store import Store

DECISION_FILE = "decision.json"
HISTORY_LIMIT = 10_000  # decisions that are read at most


@dataclass(frozen=True)
class DecisionRecord:  # pylint: disable=too-many-instance-attributes  # one row of the exported history
    """A past decision. The alias was to move from `previous_version` to `version`; both are "" for an unset alias.

    Attributes
    ----------
    decision_id, run_id
        MLflow's ids of the decision, whose artifacts hold its evidence, and of the run that was judged.
    requested_version, requested_by
        The version of a request (PENDING) or of its approval, and who requested what was approved; "" otherwise.
    signed_by
        The fingerprint of the key with which the version was signed by this decision; "" if it was not.
    table, split
        Fingerprints of the table and of the split whose test rows judged; "" for a rollback.
    """

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
    decision_id: str = ""
    run_id: str = ""
    requested_version: str = ""
    requested_by: str = ""
    signed_by: str = ""
    table: str = ""
    split: str = ""


@contextmanager
def exclusive(alias: AliasSettings, store: Store) -> Iterator[None]:
    """Hold the lock under which this machine decides about a registered model, and close interrupted decisions."""
    with machine_lock(f"{store.client.uri} {alias.registered_model}", "promotions"):
        store.runs.close_dead(alias.experiment)
        yield


def save_decision(record: Run, decision: Decision) -> None:
    """Log a decision to its run, before the alias moves."""
    record.log(
        metrics=_metrics(decision),
        tags={
            tags.ALIAS: decision.alias,
            tags.ACTOR: decision.actor,
            tags.FROM: decision.previous_version or "",
            tags.TO: decision.version or "",
            tags.REASON: "; ".join(reason.rstrip(".") for reason in decision.reasons)[:1000],
            tags.FORCED: str(bool(decision.force_reason)).lower(),
            tags.VERDICT: decision.verdict,
            **({} if decision.requested_version is None else {tags.REQUESTED_VERSION: decision.requested_version}),
            **({tags.REQUESTED_BY: decision.requested_by} if decision.requested_by else {}),
            **({tags.SIGNED_BY: decision.signed_by} if decision.signed_by else {}),
        },
    )
    record.log_text(DECISION_FILE, decision.to_json())


def _metrics(decision: Decision) -> dict[str, float]:
    metrics = {f"challenger_{name}": value for name, value in decision.challenger_metrics.items()}
    metrics |= {f"champion_{name}": value for name, value in decision.champion_metrics.items()}
    if decision.difference is not None:
        bounds = {"difference_lower": decision.difference.lower, "difference_upper": decision.difference.upper}
        metrics["difference"] = decision.difference.difference
        metrics |= {name: bound for name, bound in bounds.items() if bound is not None}
    return metrics


def sign_version(alias: AliasSettings, store: Store, decision: Decision, version: str) -> None:
    """Sign a version before it is served, and add the key to the decision. Without a key, say if the present version has one.

    Raises
    ------
    BundleError
        If the bundle is damaged, or another one than was judged.
    """
    model = alias.registered_model
    if alias.signer is None:
        if _is_signed(store, model, decision.previous_version) and not _is_signed(store, model, version):
            command = next_command("promote", f"alias={alias.name}", "signing_key=FILE")
            decision.reasons.append(
                f"version {version} is not signed, but version {decision.previous_version} is: servers with serve.trusted_keys"
                f" refuse it until it is: {command}"
            )
        return
    with store.artifacts.bundle(f"models:/{model}/{version}") as directory:
        text = alias.signer.sign_judged(directory, model, version, decision.bundle_sha256)
    decision.signed_by = alias.signer.fingerprint
    store.registry.tag_version(model, version, f"{TAG_PREFIX}{decision.signed_by}", text)
    decision.reasons.append(f"version {version} is signed with key {decision.signed_by}")


def _is_signed(store: Store, model: str, version: str | None) -> bool:
    return version is not None and any(tag.startswith(TAG_PREFIX) for tag in store.registry.tags_of_version(model, version))


def apply_decision(alias: AliasSettings, store: Store, record: Run, decision: Decision) -> None:
    """Sign the version, log the decision, then move the alias. If interrupted, the alias points to the old or the new version.

    A canary beside the alias is over once the alias has moved.
    """
    version = decision.version
    assert version is not None
    canary = store.registry.canary_at(alias.registered_model, alias.name)
    if canary is not None and canary.version != version:
        decision.reasons.append(f"the canary, version {canary.version}, is over, because {alias.name} moves")
    sign_version(alias, store, decision, version)
    save_decision(record, decision)
    if decision.verdict == PROMOTE:
        store.registry.tag_version(alias.registered_model, version, f"{tags.DECISION}.{alias.name}", decision.to_json())
    store.registry.move_alias(alias.registered_model, alias.name, decision.previous_version, version)
    store.registry.end_canary(alias.registered_model, alias.name)
    store.registry.append_description(alias.registered_model, version, describe_move(decision))


def wait_for_server(alias: AliasSettings, store: Store, record: Run, decision: Decision) -> None:
    """Wait until the server that follows the alias serves the version, and log when it did. Do nothing without a server."""
    if alias.server.url is None or decision.version is None:
        return
    status = wait_for_version(alias.server, alias.registered_model, alias.name, decision.version)
    decision.served_at = status.since
    decision.reasons.append(status.message)
    if status.since:
        record.log(tags={tags.SERVED: status.since})
        store.registry.tag_version(alias.registered_model, decision.version, f"{tags.SERVED}.{alias.name}", status.since)


def list_decisions(store: Store, experiment: str, alias: str | None = None, limit: int = HISTORY_LIMIT) -> list[DecisionRecord]:
    """Return the decisions about an alias, or about all aliases, newest first."""
    wanted_tags = {tags.RUN_TYPE: "decision"} | ({tags.ALIAS: alias} if alias else {})
    return [_to_record(run) for run in store.runs.find_latest(experiment, wanted_tags, limit)]


def read_decision(store: Store, experiment: str, alias: str | None = None, run_id: str | None = None) -> dict[str, Any]:
    """Return the newest finished decision, about an alias or about a run if one is given, with all that led to it.

    Raises
    ------
    HousingError
        If there is no such decision.
    """
    conditions = {tags.ALIAS: alias, tags.CHALLENGER: run_id}
    wanted_tags = {tags.RUN_TYPE: "decision"} | {name: value for name, value in conditions.items() if value is not None}
    decisions = [run for run in store.runs.find_latest(experiment, wanted_tags, HISTORY_LIMIT) if run.status == "FINISHED"]
    if not decisions:
        about = "".join(f" about {value}" for value in (alias, run_id) if value is not None)
        raise HousingError(f"The decision log has no finished decision{about}. Decide with: {next_command('promote')}")
    decision: dict[str, Any] = json.loads(store.artifacts.read_text(decisions[0].id, DECISION_FILE))
    return decision


def read_record(store: Store, run: RunRecord) -> Decision:
    """Return a logged decision, without its evaluation."""
    return Decision.from_json(store.artifacts.read_text(run.id, DECISION_FILE))


def _to_record(run: RunRecord) -> DecisionRecord:
    tag = run.tags.get
    return DecisionRecord(
        decided_at=run.started_at,
        finished=run.status == "FINISHED",
        verdict=tag(tags.VERDICT, "none"),
        alias=tag(tags.ALIAS, ""),
        previous_version=tag(tags.FROM, ""),
        version=tag(tags.TO, ""),
        actor=tag(tags.ACTOR, ""),
        reason=tag(tags.REASON, tag(tags.ERROR, "")),
        forced=tag(tags.FORCED) == "true",
        served_at=tag(tags.SERVED, ""),
        metrics=run.metrics,
        decision_id=run.id,
        run_id=tag(tags.CHALLENGER, ""),
        requested_version=tag(tags.REQUESTED_VERSION, ""),
        requested_by=tag(tags.REQUESTED_BY, ""),
        signed_by=tag(tags.SIGNED_BY, ""),
        table=tag(tags.DATA, ""),
        split=tag(tags.SPLIT, ""),
    )


def previous_versions(newest_first: Sequence[DecisionRecord], current: str) -> list[str]:
    """Return the versions that were at an alias before the current one, last first.

    Versions that were rolled back, and moves that never happened, are omitted.
    """
    stack: list[str] = []
    for move in _completed_moves(newest_first, current):
        _push(stack, move.previous_version)  # the alias may have been set by hand
        if move.verdict == ROLLBACK and move.version in stack:
            del stack[stack.index(move.version) + 1 :]
        else:
            _push(stack, move.version)
    _push(stack, current)
    return stack[-2::-1]


def _push(stack: list[str], version: str) -> None:
    if version in stack:
        stack.remove(version)
    if version:
        stack.append(version)


def _completed_moves(newest_first: Sequence[DecisionRecord], current: str) -> list[DecisionRecord]:
    """Return the moves that happened, oldest first.

    Whether an interrupted move happened follows from the version that the next move started from.
    """
    moves = [record for record in reversed(newest_first) if record.verdict in (PROMOTE, ROLLBACK)]
    next_versions = [*(move.previous_version for move in moves), current][1:]
    return [move for move, after in zip(moves, next_versions, strict=True) if move.finished or move.version == after]


def find_last_move(newest_first: Sequence[DecisionRecord], current: str) -> DecisionRecord | None:
    """Return the decision that moved an alias to its current version, or None if it was moved by hand."""
    moves = _completed_moves(newest_first, current)
    return moves[-1] if moves and moves[-1].version == current else None


def find_rollback(newest_first: Sequence[DecisionRecord], version: str, current: str) -> DecisionRecord | None:
    """Return the rollback that removed a version from an alias, or that took it back as a canary.

    None if it last left the alias in another way.
    """
    moves = _completed_moves(newest_first, current)
    departures = (
        record
        for record in newest_first
        if record.previous_version == version != record.version and (record.verdict == TAKE_BACK or record in moves)
    )
    last = next(departures, None)
    return last if last is not None and last.verdict in (ROLLBACK, TAKE_BACK) else None


def served_versions(decisions: Sequence[DecisionRecord]) -> set[str]:
    """Return the versions that a server was seen to serve."""
    return {decision.version for decision in decisions if decision.served_at}
