"""Entry: give the servers back the version that they had before.

python -m housing.rollback
"""

import sys

from omegaconf import DictConfig

from housing import console, decisions, tracking
from housing.bundle import Bundle
from housing.config import command
from housing.errors import BundleError, StoreError
from housing.records import ROLLBACK, Decision
from housing.tracking import Store


def rollback(cfg: DictConfig) -> Decision:
    """Move an alias back to the last version that served there and still works, and record that as a decision.

    Raises StoreError where there is none to go back to.
    """
    store = tracking.connect(cfg.mlflow)
    with decisions.one_at_a_time(cfg, store):
        decision = _decide(cfg, store)
        tags = {tracking.KIND: "decision", tracking.CHALLENGER: decision.run_id}
        with store.run(cfg.decisions, f"{cfg.alias} back to {decision.version}", tags) as record:
            decisions.carry_out(cfg, store, record, decision)
        decisions.look_at_server(cfg, store, record, decision)
    return decision


def _decide(cfg: DictConfig, store: Store) -> Decision:
    current = store.version_at(cfg.registered_model, cfg.alias)
    if current is None:
        raise StoreError(f"{cfg.registered_model} has no version at {cfg.alias}: there is nothing to go back from")
    reasons = [str(cfg.reason)] if cfg.reason else []
    version = _first_that_works(cfg, store, _candidates(cfg, store, current, reasons), reasons)
    run_id = store.run_of(cfg.registered_model, version)
    return Decision(run_id, cfg.alias, decisions.who(cfg), current, verdict=ROLLBACK, reasons=reasons, version=version)


def _candidates(cfg: DictConfig, store: Store, current: str, reasons: list[str]) -> list[str]:
    """Give the versions to go back to, the best first. Raises StoreError where there is none."""
    if cfg.version is not None:
        return [str(cfg.version)]
    past = decisions.past(store, cfg.decisions, cfg.alias)
    before = decisions.stood_before(past, current)
    if not before:
        raise StoreError(
            f"no version is known to have been at {cfg.alias} before version {current};"
            " version=NUMBER goes to any that the registry has"
        )
    served = [version for version in before if version in decisions.that_served(past)]
    if cfg.serve.url is None:
        return before
    unseen = before[: before.index(served[0])] if served else before
    if unseen:
        reasons.append(f"of version {', '.join(unseen)} nobody has seen that a server answered with it")
    return served or before


def _first_that_works(cfg: DictConfig, store: Store, candidates: list[str], reasons: list[str]) -> str:
    for version in candidates:
        try:
            with store.bundle(f"models:/{cfg.registered_model}/{version}") as folder:
                Bundle.read(folder)
        except (BundleError, StoreError) as error:
            reasons.append(f"version {version} cannot be used: {error}")
        else:
            return version
    raise StoreError(f"{cfg.alias} stays where it is: {'; '.join(reasons)}")


@command("rollback")
def main(cfg: DictConfig) -> None:
    """Roll back and print that. Exit code 1 where nothing was moved, or where the server does not answer with the version."""
    decision = rollback(cfg)
    console.show_decision(decision, cfg.registered_model)
    if cfg.serve.url is not None and not decision.served:
        sys.exit(1)


if __name__ == "__main__":
    main()
