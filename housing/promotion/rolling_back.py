"""Rollback: return an alias to the last version that served there and still works."""

from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.command_line.next_command import next_command
from housing.core.errors import BundleError, ConfigError, StoreError
from housing.promotion import decision_log
from housing.promotion.decision import ROLLBACK, Decision
from housing.promotion.decision_events import send_decision
from housing.promotion.settings import AliasSettings
from housing.tracking import store as tracking
from housing.tracking import tags
from housing.tracking.store import Store


def rollback(cfg: DictConfig) -> Decision:
    """Move an alias back to the previous version that works, and log that as a decision.

    Raises
    ------
    ConfigError
        If the alias requires approval, and was never at the chosen version.
    StoreError
        If there is no version to return to.
    """
    alias, store = AliasSettings.from_config(cfg), tracking.connect(cfg.mlflow)
    requested_version = None if cfg.version is None else str(cfg.version)
    with decision_log.exclusive(alias, store):
        decision = _decide(alias, store, requested_version, [str(cfg.reason)] if cfg.reason else [])
        run_tags = {tags.RUN_TYPE: "decision", tags.CHALLENGER: decision.run_id}
        with store.runs.start(alias.experiment, f"{alias.name} back to {decision.version}", run_tags) as record:
            decision_log.apply_decision(alias, store, record, decision)
        decision_log.wait_for_server(alias, store, record, decision)
    send_decision(alias.events, alias.registered_model, decision, record.id)
    return decision


def _decide(alias: AliasSettings, store: Store, requested_version: str | None, reasons: list[str]) -> Decision:
    current = store.registry.version_at(alias.registered_model, alias.name)
    if current is None:
        raise StoreError(
            f"Could not roll back: {alias.registered_model} has no version at {alias.name}."
            f" Promote one first: {next_command('promote', f'alias={alias.name}')}"
        )
    if requested_version and alias.needs_approval:
        _require_former_version(alias, store, current, requested_version)
    versions = [requested_version] if requested_version else _candidates(alias, store, current, reasons)
    version = _first_usable(alias, store, versions, reasons)
    run_id = store.registry.run_of_version(alias.registered_model, version)
    return Decision(run_id, alias.name, alias.actor, current, verdict=ROLLBACK, reasons=reasons, version=version)


def _require_former_version(alias: AliasSettings, store: Store, current: str, version: str) -> None:
    """Raise ConfigError if a version was never approved: it has not been at the alias before."""
    former = decision_log.previous_versions(decision_log.list_decisions(store, alias.experiment, alias.name), current)
    if version not in former:
        raise ConfigError(
            f"{alias.name} requires approval, so it returns only to a version that was there before:"
            f" {', '.join(former) or 'none'} (got version={version})."
            f" Request another one with: {next_command('promote', f'alias={alias.name}')}"
        )


def _candidates(alias: AliasSettings, store: Store, current: str, reasons: list[str]) -> list[str]:
    """Return the versions to return to, the best first.

    With a server, versions that it was seen to serve are preferred. `reasons` names the versions that are passed over.
    """
    decisions = decision_log.list_decisions(store, alias.experiment, alias.name)
    previous = decision_log.previous_versions(decisions, current)
    if not previous:
        raise StoreError(
            f"Could not roll back: the decision log has no version at {alias.name} before version {current}."
            " Select any version of the registry with version=NUMBER."
        )
    if alias.server.url is None:
        return previous
    served_versions = decision_log.served_versions(decisions)
    served = [version for version in previous if version in served_versions]
    never_served = previous[: previous.index(served[0])] if served else previous
    if never_served:
        reasons.append(f"no server was seen to serve version {', '.join(never_served)}")
    return served or previous


def _first_usable(alias: AliasSettings, store: Store, versions: list[str], reasons: list[str]) -> str:
    """Return the first version whose bundle can be read. `reasons` says why others cannot."""
    for version in versions:
        try:
            with store.artifacts.bundle(f"models:/{alias.registered_model}/{version}") as directory:
                Bundle.read(directory)
        except (BundleError, StoreError) as error:
            reasons.append(f"version {version} is unusable: {error}")
        else:
            return version
    raise StoreError(f"Could not roll back; {alias.name} is unchanged: {'; '.join(reasons)}")
