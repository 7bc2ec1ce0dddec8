"""Approval: a second person carries out a promotion that was requested, if nothing that it rests on has changed since.

A person is the `actor` of a decision. This is a record, and no authentication: who may write to the store may move its aliases.
"""

from dataclasses import replace

from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.command_line.next_command import next_command
from housing.core.errors import ConfigError, StoreError
from housing.promotion import decision_log
from housing.promotion.decision import PENDING, PROMOTE, ROLLBACK, Decision
from housing.promotion.decision_events import send_decision
from housing.promotion.settings import AliasSettings
from housing.promotion.test_set import TestSet
from housing.tracking import store as tracking
from housing.tracking import tags
from housing.tracking.runs import RunRecord
from housing.tracking.store import Store


def approve(cfg: DictConfig) -> Decision:
    """Move an alias to the version of its open request, and log that as a decision with the evidence of the request.

    Raises
    ------
    ConfigError
        If the person who approves is the one who requested, or has no key for a request to sign, or if the open request is about
        another version than `version`.
    StoreError
        If there is no open request, or if what it rests on has changed.
    BundleError
        If the bundle of the version is damaged.
    """
    alias, store = AliasSettings.from_config(cfg), tracking.connect(cfg.mlflow)
    with decision_log.exclusive(alias, store):
        request = _open_request(alias, store)
        requested = decision_log.read_record(store, request)
        _require_signer(alias, requested)
        _require_other_person(alias, requested, None if cfg.version is None else str(cfg.version))
        test_tags = _require_unchanged(cfg, alias, store, request, requested)
        decision = _approved(requested, request.id, alias.actor, str(cfg.reason or ""))
        run_tags = {**test_tags, tags.RUN_TYPE: "decision", tags.CHALLENGER: decision.run_id}
        with store.runs.start(alias.experiment, f"{alias.name} approved {request.id[:8]}", run_tags) as record:
            decision_log.apply_decision(alias, store, record, decision)
        decision_log.wait_for_server(alias, store, record, decision)
    send_decision(alias.events, alias.registered_model, decision, record.id)
    return decision


def _open_request(alias: AliasSettings, store: Store) -> RunRecord:
    """Return the newest request about an alias, unless the alias has moved after it."""
    wanted_tags = {tags.RUN_TYPE: "decision", tags.ALIAS: alias.name}
    decisions = store.runs.find_latest(alias.experiment, wanted_tags, decision_log.HISTORY_LIMIT)
    finished = [decision for decision in decisions if decision.status == "FINISHED"]
    newest = next((run for run in finished if run.tags.get(tags.VERDICT) in (PENDING, PROMOTE, ROLLBACK)), None)
    if newest is None or newest.tags[tags.VERDICT] != PENDING:
        raise StoreError(
            f"There is no open request for {alias.name} of {alias.registered_model}."
            f" Request one with: {next_command('promote', f'alias={alias.name}')}"
        )
    return newest


def _require_signer(alias: AliasSettings, requested: Decision) -> None:
    """Raise ConfigError if a version that was requested to be signed would not be."""
    if requested.needs_signature and alias.signer is None:
        command = next_command("approve", f"alias={alias.name}", f"version={requested.requested_version}", "signing_key=FILE")
        raise ConfigError(
            f"{requested.actor} has requested that version {requested.requested_version} at {alias.name} is signed,"
            f" which happens with the approval. Approve it with your key: {command}"
        )


def _require_other_person(alias: AliasSettings, requested: Decision, version: str | None) -> None:
    if version not in (None, requested.requested_version):
        raise ConfigError(
            f"The open request for {alias.name} is about version {requested.requested_version} (got version={version})."
        )
    if alias.actor == requested.actor:
        command = next_command("approve", f"alias={alias.name}", f"version={requested.requested_version}")
        raise ConfigError(
            f"{requested.actor} has requested version {requested.requested_version} at {alias.name}."
            f" Another person must approve it, with: {command}"
        )


def _require_unchanged(
    cfg: DictConfig, alias: AliasSettings, store: Store, request: RunRecord, requested: Decision
) -> dict[str, str]:
    """Return the tags of the test set. Raise StoreError if they, the alias or the version are no longer those of the request."""
    model, version = alias.registered_model, str(requested.requested_version)
    source = cfg.aliases.get(alias.name)
    present: list[tuple[str, object, object]] = [
        (f"the version at {alias.name}", requested.previous_version, store.registry.version_at(model, alias.name)),
        *([] if source is None else [(f"the version at {source}", version, store.registry.version_at(model, source))]),
        (f"the run of version {version}", requested.run_id, store.registry.run_of_version(model, version)),
    ]
    _require_equal(alias, present)
    test_tags = TestSet.load(cfg).tags()  # last, since it reads the table
    names = {tags.DATA: "the table", tags.SPLIT: "the split into training and test rows"}
    _require_equal(alias, [(name, request.tags.get(tag), test_tags[tag]) for tag, name in names.items()])
    with store.artifacts.bundle(f"models:/{model}/{version}") as directory:
        Bundle.read(directory)
    return test_tags


def _require_equal(alias: AliasSettings, present: list[tuple[str, object, object]]) -> None:
    changes = [f"{name} was {before or 'none'} and is {now or 'none'}" for name, before, now in present if before != now]
    if changes:
        raise StoreError(
            f"The request for {alias.name} cannot be approved, since something has changed: {'; '.join(changes)}."
            f" Request it again: {next_command('promote', f'alias={alias.name}')}"
        )


def _approved(requested: Decision, request_id: str, actor: str, reason: str) -> Decision:
    """Return the decision of the person who approves, with the evidence of the request."""
    reasons = [f"requested by {requested.actor}, approved by {actor}{f': {reason}' if reason else ''}", *requested.reasons[:-1]]
    return replace(
        requested,
        actor=actor,
        verdict=PROMOTE,
        version=requested.requested_version,
        reasons=reasons,
        next_command="",
        request=request_id,
        requested_by=requested.actor,
    )
