"""Going back: to which version, that it works, how fast a server answers with it, and that it is written down."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from housing.core.errors import StoreError
from housing.promotion.decision import Decision
from housing.promotion.decision_log import DecisionRecord, list_decisions, previous_versions
from housing.promotion.rolling_back import rollback
from housing.tracking import store as tracking_store
from housing.tracking import tags
from housing.tracking.store import Store
from tests.housing.promotion.test_promotion import bundle_files, gate, spoil
from tests.support.commands import command
from tests.support.promotions import BETTER, MODEL, TABLE, WORSE, promoted, rolled_back
from tests.support.server import serving
from tests.support.tables import config, train
from tests.support.waiting import wait_for


@pytest.fixture
def store(home: Path) -> Store:
    """The store of the test's own home."""
    return tracking_store.Store(f"sqlite:///{home}/mlflow.db", artifact_root=str(home / "mlartifacts"), ui="")


def back(*overrides: str) -> Decision:
    """Roll back as the command does."""
    return rollback(config("rollback", "data=rentals", *overrides))


def one(verdict: str, before: str, version: str, finished: bool = True) -> DecisionRecord:
    """A decision of the past."""
    return DecisionRecord(datetime.now(UTC), finished, verdict, "staging", before, version, "", "", False, "", {})


@pytest.mark.parametrize(
    ("oldest_first", "current", "expected"),
    [
        ([one("PROMOTE", "", "1")], "1", []),
        ([one("PROMOTE", "", "1"), one("PROMOTE", "1", "2"), one("PROMOTE", "2", "3")], "3", ["2", "1"]),
        # what was left behind is not gone back to
        ([one("PROMOTE", "", "1"), one("PROMOTE", "1", "2"), one("PROMOTE", "2", "3"), one("ROLLBACK", "3", "2")], "2", ["1"]),
        # a rollback that was cut off after the alias had moved, and one before
        ([one("PROMOTE", "", "1"), one("PROMOTE", "1", "2"), one("ROLLBACK", "2", "1", False)], "1", []),
        ([one("PROMOTE", "", "1"), one("PROMOTE", "1", "2"), one("ROLLBACK", "2", "1", False)], "2", ["1"]),
        # a promotion that was cut off, before and after
        ([one("PROMOTE", "", "1"), one("PROMOTE", "1", "2", False), one("PROMOTE", "1", "3")], "3", ["1"]),
        ([one("PROMOTE", "", "1"), one("PROMOTE", "1", "2", False), one("PROMOTE", "2", "3")], "3", ["2", "1"]),
        # moved by hand
        ([one("PROMOTE", "", "1"), one("PROMOTE", "1", "2")], "7", ["2", "1"]),
        # promoted once more
        ([one("PROMOTE", "", "1"), one("PROMOTE", "1", "2"), one("PROMOTE", "2", "1")], "1", ["2"]),
        # what was held or rejected has moved nothing
        ([one("PROMOTE", "", "1"), one("PROMOTE", "1", "2"), one("REJECT", "2", "2"), one("HOLD", "2", "2")], "2", ["1"]),
    ],
)
def test_the_versions_before_follow_from_what_was_decided(
    oldest_first: list[DecisionRecord], current: str, expected: list[str]
) -> None:
    assert previous_versions(oldest_first[::-1], current) == expected


def test_the_alias_goes_back_to_the_version_before_and_that_is_a_decision(home: Path, store: Store) -> None:
    with pytest.raises(StoreError, match="housing-rentals has no version at staging: there is nothing to go back from"):
        back()
    train(home, *WORSE)
    gate()
    with pytest.raises(StoreError, match="no version is known to have been at staging before version 1; version=NUMBER"):
        back()
    train(home, *BETTER)
    gate()
    decision = back("reason=too high in the north", "actor=somebody")
    assert (decision.verdict, decision.previous_version, decision.version) == ("ROLLBACK", "2", "1")
    assert store.registry.version_at(MODEL, "staging") == "1"
    newest = list_decisions(store, "rentals-decisions")[0]
    assert (newest.verdict, newest.previous_version, newest.version, newest.finished) == ("ROLLBACK", "2", "1", True)
    assert (newest.actor, newest.reason) == ("somebody", "too high in the north")
    with pytest.raises(StoreError, match="before version 1"):
        back()
    assert back("version=2").version == "2"
    with pytest.raises(StoreError, match="version 9 cannot be used: .*"):
        back("version=9")
    unseen = back("serve.url=http://127.0.0.1:9", "serve.wait_seconds=0")  # no server was ever asked
    assert (unseen.version, unseen.served_at) == ("1", "")
    assert unseen.reasons[0] == "of version 1 nobody has seen that a server answered with it"
    assert "http://127.0.0.1:9 does NOT answer with version 1 after 0 s: URLError" in unseen.reasons[1]


def test_a_version_that_is_damaged_is_passed_over_and_told(home: Path, store: Store) -> None:
    runs = []
    for depth in (1, 2, 3):
        runs.append(train(home, *WORSE[:2], f"model.estimator.max_depth={depth}").run_id)
        gate(f"run_id={runs[-1]}", "force=true", "force_reason=to have three")
    spoil(bundle_files(store, str(runs[1])) / "card.json")
    decision = back()
    assert (decision.previous_version, decision.version) == ("3", "1")
    assert decision.reasons[0].startswith("version 2 cannot be used: bundle ") and "card.json" in decision.reasons[0]
    spoil(bundle_files(store, str(runs[0])) / "card.json")
    with pytest.raises(StoreError, match="staging stays where it is: version 1 cannot be used"):
        back("version=1")
    assert store.registry.version_at(MODEL, "staging") == "1"


def test_a_version_that_nobody_saw_serve_is_passed_over_and_told(home: Path, store: Store) -> None:
    for depth in (1, 2, 3):
        run = train(home, *WORSE[:2], f"model.estimator.max_depth={depth}")
        gate(f"run_id={run.run_id}", "force=true", "force_reason=to have three")
    (first,) = store.runs.find_latest("rentals-decisions", {tags.TO: "1"}, 1)
    store.client.api.set_tag(first.id, tags.SERVED, "2026-01-01T00:00:00+00:00")
    decision = back("serve.url=http://127.0.0.1:9", "serve.wait_seconds=0")
    assert (decision.previous_version, decision.version) == ("3", "1")
    assert decision.reasons[0] == "of version 2 nobody has seen that a server answered with it"


@pytest.mark.long
def test_what_served_is_written_down_and_a_rollback_goes_back_to_that(home: Path, store: Store) -> None:
    with serving(home, "serve.poll_seconds=0.5") as server:
        wait_for(lambda: server.answers("/healthz"), "the server lives")
        train(home, *WORSE)
        first = gate(f"serve.url={server.url}")
        assert first.served_at and f"{server.url} answers with version 1, after" in first.reasons[-1]
        assert store.client.api.get_model_version(MODEL, "1").tags["housing.served_at.staging"] == first.served_at
        unseen = train(home, *WORSE, "model.estimator.max_depth=3")
        assert not gate(f"run_id={unseen.run_id}", "force=true", "force_reason=nobody asks the server").served_at
        train(home, *BETTER)
        ended = promoted(home, f"serve.url={server.url}")
        assert ended.code == 0 and f"{server.url} answers with version 3" in ended.out
        _, went = rolled_back(home, server.url)
        assert went.code == 0 and "ROLLBACK  housing-rentals at alias staging" in went.out
        assert server.ask("/model").json["version"] == "1"  # version 2 never was seen to serve
    away = command(home, "housing.rollback", *TABLE, f"serve.url={server.url}", "serve.wait_seconds=1", "version=3")
    assert away.code == 1 and f"{server.url} does NOT answer with version 3 after 1 s" in away.out
    newest, *older = list_decisions(store, "rentals-decisions")
    assert (newest.verdict, newest.version, newest.served_at) == ("ROLLBACK", "3", "") and older[0].served_at


@pytest.mark.long
def test_a_server_that_follows_another_alias_is_told(home: Path) -> None:
    train(home, *BETTER)
    gate()
    with serving(home) as server:
        wait_for(lambda: server.answers("/readyz"), "version 1 is served")
        decision = gate("alias=production", "evaluate=quick", f"serve.url={server.url}", "serve.wait_seconds=1")
        assert (decision.verdict, decision.served_at) == ("PROMOTE", "")
        assert decision.reasons[-1].endswith("does NOT answer with version 1 after 1 s: it has alias staging")
