"""The canary beside an alias: how it begins, takes over, and is taken back. Each is a decision of the decision log.

The registry holds its state (`housing.core.canary`). Its end is one call there, so an interrupted decision is simply made again.
"""

import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime

from housing.command_line.next_command import next_command
from housing.core.canary import Canary, canary_alias
from housing.core.errors import ConfigError, StoreError
from housing.promotion import decision_log
from housing.promotion.decision import CANARY, PROMOTE, TAKE_BACK, Decision
from housing.promotion.decision_events import send_decision
from housing.promotion.settings import AliasSettings
from housing.tracking import tags
from housing.tracking.runs import Run
from housing.tracking.store import Store


def require_possible(alias: AliasSettings, store: Store) -> None:
    """Raise StoreError unless a canary can begin: there is a version beside which it answers, and no other canary.

    Raises ConfigError if the alias requires approval, since nobody would approve that the canary takes over.
    """
    if alias.needs_approval:
        raise ConfigError(f"canary must be 0 for {alias.name}, which requires approval (approval_required).")
    if store.registry.version_at(alias.registered_model, alias.name) is None:
        raise StoreError(
            f"A canary needs a version at {alias.name}, which answers the other requests, and there is none. Omit canary."
        )
    canary = store.registry.canary_at(alias.registered_model, alias.name)
    if canary is not None:
        end = next_command("canary", f"alias={alias.name}", "take_back=true", "reason=REASON")
        raise StoreError(f"Version {canary.version} is the canary of {alias.name} already. End it first: {end}")


def start(alias: AliasSettings, store: Store, record: Run, decision: Decision, version: str, share: float) -> None:
    """Log a promotion as a canary and let its version answer a share of the requests. The alias stays."""
    champion = decision.previous_version
    assert champion is not None  # or else `require_possible` has raised
    decision.verdict, decision.version = CANARY, version
    decision.reasons.append(
        f"version {version} answers {share:.3g} of the requests, until it takes over or is taken back:"
        f" {next_command('canary', f'alias={alias.name}', 'follow=true')}"
    )
    decision_log.sign_version(alias, store, decision, version)
    decision_log.save_decision(record, decision)
    store.registry.start_canary(alias.registered_model, alias.name, Canary(version, champion, share, time.time()))
    line = f"- {_now()}: the canary of `{alias.name}`, with {share:.3g} of the requests, by {decision.actor}."
    store.registry.append_description(alias.registered_model, version, line)


def remove_ended(alias: AliasSettings, store: Store) -> None:
    """Remove what an interrupted decision left of a canary that is over. Under the lock, since another may just begin."""
    model = alias.registered_model
    if store.registry.version_at(model, canary_alias(alias.name)) is None:
        return
    with decision_log.exclusive(alias, store):
        if store.registry.canary_at(model, alias.name) is None:
            store.registry.end_canary(model, alias.name)


def take_over(alias: AliasSettings, store: Store, canary: Canary, reasons: list[str]) -> Decision:
    """Move the alias to the canary, and log that as a promotion.

    Raises ConfigError if the alias requires approval by now.
    """
    if alias.needs_approval:
        end = next_command("canary", f"alias={alias.name}", "take_back=true", "reason=REASON")
        raise ConfigError(
            f"{alias.name} requires approval (approval_required), so version {canary.version} cannot take over as its canary."
            f" Take it back with: {end}"
        )
    decision = _decision(alias, store, canary, PROMOTE, reasons)
    decision.previous_version, decision.version = canary.champion, canary.version
    with _record(alias, store, decision, f"{alias.name} to {canary.version}") as record:
        decision_log.apply_decision(alias, store, record, decision)
    decision_log.wait_for_server(alias, store, record, decision)
    send_decision(alias.events, alias.registered_model, decision, record.id)
    return decision


def take_back(alias: AliasSettings, store: Store, canary: Canary, reasons: list[str]) -> Decision:
    """End a canary, so that the version at the alias answers all requests again, and log that."""
    decision = _decision(alias, store, canary, TAKE_BACK, reasons)
    decision.previous_version, decision.version = canary.version, canary.champion
    with _record(alias, store, decision, f"{alias.name} without {canary.version}") as record:
        decision_log.save_decision(record, decision)
        store.registry.end_canary(alias.registered_model, alias.name)
        line = f"- {_now()}: no longer the canary of `{alias.name}`, taken back by {alias.actor}."
        store.registry.append_description(alias.registered_model, canary.version, line)
    send_decision(alias.events, alias.registered_model, decision, record.id)
    return decision


def _decision(alias: AliasSettings, store: Store, canary: Canary, verdict: str, reasons: list[str]) -> Decision:
    run_id = store.registry.run_of_version(alias.registered_model, canary.version)
    return Decision(run_id, alias.name, alias.actor, champion=f"version {canary.champion}", verdict=verdict, reasons=reasons)


def _record(alias: AliasSettings, store: Store, decision: Decision, name: str) -> AbstractContextManager[Run]:
    run_tags = {tags.RUN_TYPE: "decision", tags.CHALLENGER: decision.run_id}
    return store.runs.start(alias.experiment, name, run_tags)


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
