"""TODO docstring."""

from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.core.errors import BundleError, StoreError
from housing.promotion import decision_log
from housing.promotion.decision import ROLLBACK, Decision
from housing.tracking import store as tracking_store
from housing.tracking import tags as tracking_tags
from housing.tracking.store import Store


def rollback(cfg: DictConfig) -> Decision:
    """Move an alias back to the last version that served there and still works, and record that as a decision.

    Raises StoreError where there is none to go back to.
    """
    store = tracking_store.connect(cfg.mlflow)
    with decision_log.exclusive(cfg, store):
        decision = _decide(cfg, store)
        tags = {tracking_tags.RUN_TYPE: "decision", tracking_tags.CHALLENGER: decision.run_id}
        with store.runs.start(cfg.decisions_experiment, f"{cfg.alias} back to {decision.version}", tags) as record:
            decision_log.apply_decision(cfg, store, record, decision)
        decision_log.wait_for_server(cfg, store, record, decision)
    return decision


def _decide(cfg: DictConfig, store: Store) -> Decision:
    current = store.registry.version_at(cfg.registered_model, cfg.alias)
    if current is None:
        raise StoreError(f"{cfg.registered_model} has no version at {cfg.alias}: there is nothing to go back from")
    reasons = [str(cfg.reason)] if cfg.reason else []
    version = _first_usable(cfg, store, _candidates(cfg, store, current, reasons), reasons)
    run_id = store.registry.run_of_version(cfg.registered_model, version)
    return Decision(
        run_id, cfg.alias, decision_log.current_user(cfg), current, verdict=ROLLBACK, reasons=reasons, version=version
    )


def _candidates(cfg: DictConfig, store: Store, current: str, reasons: list[str]) -> list[str]:
    """Give the versions to go back to, the best first. Raises StoreError where there is none."""
    if cfg.version is not None:
        return [str(cfg.version)]
    past = decision_log.list_decisions(store, cfg.decisions_experiment, cfg.alias)
    before = decision_log.previous_versions(past, current)
    if not before:
        raise StoreError(
            f"no version is known to have been at {cfg.alias} before version {current};"
            " version=NUMBER goes to any that the registry has"
        )
    served = [version for version in before if version in decision_log.served_versions(past)]
    if cfg.serve.url is None:
        return before
    unseen = before[: before.index(served[0])] if served else before
    if unseen:
        reasons.append(f"of version {', '.join(unseen)} nobody has seen that a server answered with it")
    return served or before


def _first_usable(cfg: DictConfig, store: Store, candidates: list[str], reasons: list[str]) -> str:
    for version in candidates:
        try:
            with store.artifacts.bundle(f"models:/{cfg.registered_model}/{version}") as folder:
                Bundle.read(folder)
        except (BundleError, StoreError) as error:
            reasons.append(f"version {version} cannot be used: {error}")
        else:
            return version
    raise StoreError(f"{cfg.alias} stays where it is: {'; '.join(reasons)}")
