"""Rollback: the version it returns to, damaged versions, the server that follows, and the logged decision."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from housing.core.errors import StoreError
from housing.promotion.decision import Decision
from housing.promotion.decision_log import DecisionRecord, find_rollback, list_decisions, previous_versions
from housing.promotion.rolling_back import rollback
from housing.tracking import store as tracking_store
from housing.tracking import tags
from housing.tracking.store import Store
from tests.support.commands import command
from tests.support.promotions import (
    BETTER,
    MODEL,
    TABLE,
    WORSE,
    bundle_directory,
    corrupt,
    promote_rentals,
    run_promote,
    run_rollback,
)
from tests.support.server import serving
from tests.support.tables import config, train
from tests.support.waiting import wait_for


@pytest.fixture
def store(home: Path) -> Store:
    """Return the store of the test's home."""
    return tracking_store.Store(f"sqlite:///{home}/mlflow.db", artifact_root=str(home / "mlartifacts"), ui="")


def roll_back(*overrides: str) -> Decision:
    """Roll back on the table `rentals` in this process."""
    return rollback(config("rollback", "data=rentals", *overrides))


def record(verdict: str, before: str, version: str, finished: bool = True) -> DecisionRecord:
    """Return a past decision about staging."""
    return DecisionRecord(datetime.now(UTC), finished, verdict, "staging", before, version, "", "", False, "", {})


@pytest.mark.parametrize(
    ("oldest_first", "current", "expected"),
    [
        ([record("PROMOTE", "", "1")], "1", []),
        ([record("PROMOTE", "", "1"), record("PROMOTE", "1", "2"), record("PROMOTE", "2", "3")], "3", ["2", "1"]),
        # a version that was rolled back is omitted
        (
            [record("PROMOTE", "", "1"), record("PROMOTE", "1", "2"), record("PROMOTE", "2", "3"), record("ROLLBACK", "3", "2")],
            "2",
            ["1"],
        ),
        # a rollback that was interrupted after, and before, the alias moved
        ([record("PROMOTE", "", "1"), record("PROMOTE", "1", "2"), record("ROLLBACK", "2", "1", False)], "1", []),
        ([record("PROMOTE", "", "1"), record("PROMOTE", "1", "2"), record("ROLLBACK", "2", "1", False)], "2", ["1"]),
        # a promotion that was interrupted before, and after, the alias moved
        ([record("PROMOTE", "", "1"), record("PROMOTE", "1", "2", False), record("PROMOTE", "1", "3")], "3", ["1"]),
        ([record("PROMOTE", "", "1"), record("PROMOTE", "1", "2", False), record("PROMOTE", "2", "3")], "3", ["2", "1"]),
        # the alias was set by hand
        ([record("PROMOTE", "", "1"), record("PROMOTE", "1", "2")], "7", ["2", "1"]),
        # promoted again
        ([record("PROMOTE", "", "1"), record("PROMOTE", "1", "2"), record("PROMOTE", "2", "1")], "1", ["2"]),
        # HOLD and REJECT do not move the alias
        (
            [record("PROMOTE", "", "1"), record("PROMOTE", "1", "2"), record("REJECT", "2", "2"), record("HOLD", "2", "2")],
            "2",
            ["1"],
        ),
    ],
)
def test_previous_versions_follow_from_the_decision_log(
    oldest_first: list[DecisionRecord], current: str, expected: list[str]
) -> None:
    assert previous_versions(oldest_first[::-1], current) == expected


def test_a_canary_that_was_taken_back_counts_as_rolled_back_until_it_is_promoted() -> None:
    taken_back = [record("PROMOTE", "", "1"), record("CANARY", "1", "2"), record("TAKE BACK", "2", "1")]
    assert find_rollback(taken_back[::-1], "2", "1") == taken_back[-1]
    assert not previous_versions(taken_back[::-1], "1")
    promoted = [*taken_back, record("PROMOTE", "1", "2"), record("PROMOTE", "2", "3")]
    assert find_rollback(promoted[::-1], "2", "3") is None


def test_rollback_returns_to_the_previous_version_and_logs_a_decision(home: Path, store: Store) -> None:
    with pytest.raises(StoreError, match="housing-rentals has no version at staging"):
        roll_back()
    train(home, *WORSE)
    promote_rentals()
    with pytest.raises(StoreError, match="no version at staging before version 1.*version=NUMBER"):
        roll_back()
    train(home, *BETTER)
    promote_rentals()
    decision = roll_back("reason=too high in the north", "actor=somebody")
    assert (decision.verdict, decision.previous_version, decision.version) == ("ROLLBACK", "2", "1")
    assert store.registry.version_at(MODEL, "staging") == "1"
    newest = list_decisions(store, "rentals-decisions")[0]
    assert (newest.verdict, newest.previous_version, newest.version, newest.finished) == ("ROLLBACK", "2", "1", True)
    assert (newest.actor, newest.reason) == ("somebody", "too high in the north")
    with pytest.raises(StoreError, match="before version 1"):
        roll_back()
    assert roll_back("version=2").version == "2"
    with pytest.raises(StoreError, match="version 9 is unusable: "):
        roll_back("version=9")
    unseen = roll_back("serve.url=http://127.0.0.1:9", "serve.wait_seconds=0")  # no server is running
    assert (unseen.version, unseen.served_at) == ("1", "")
    assert unseen.reasons[0] == "no server was seen to serve version 1"
    assert "http://127.0.0.1:9 does not serve version 1 after 0 s: URLError" in unseen.reasons[1]


def test_a_damaged_version_is_passed_over_with_a_reason(home: Path, store: Store) -> None:
    runs = []
    for depth in (1, 2, 3):
        runs.append(train(home, *WORSE[:2], f"model.estimator.max_depth={depth}").run_id)
        promote_rentals(f"run_id={runs[-1]}", "force=true", "force_reason=to have three")
    corrupt(bundle_directory(store, str(runs[1])) / "card.json")
    decision = roll_back()
    assert (decision.previous_version, decision.version) == ("3", "1")
    assert decision.reasons[0].startswith("version 2 is unusable: ") and "card.json" in decision.reasons[0]
    corrupt(bundle_directory(store, str(runs[0])) / "card.json")
    with pytest.raises(StoreError, match="staging is unchanged: version 1 is unusable"):
        roll_back("version=1")
    assert store.registry.version_at(MODEL, "staging") == "1"


def test_a_version_that_was_never_served_is_passed_over_with_a_reason(home: Path, store: Store) -> None:
    for depth in (1, 2, 3):
        run = train(home, *WORSE[:2], f"model.estimator.max_depth={depth}")
        promote_rentals(f"run_id={run.run_id}", "force=true", "force_reason=to have three")
    (first,) = store.runs.find_latest("rentals-decisions", {tags.TO: "1"}, 1)
    store.client.api.set_tag(first.id, tags.SERVED, "2026-01-01T00:00:00+00:00")
    decision = roll_back("serve.url=http://127.0.0.1:9", "serve.wait_seconds=0")
    assert (decision.previous_version, decision.version) == ("3", "1")
    assert decision.reasons[0] == "no server was seen to serve version 2"


@pytest.mark.long
def test_rollback_returns_to_the_version_that_a_server_was_seen_to_serve(home: Path, store: Store) -> None:
    with serving(home, "serve.poll_seconds=0.5") as server:
        wait_for(lambda: server.answers("/healthz"), "the server lives")
        train(home, *WORSE)
        first = promote_rentals(f"serve.url={server.url}")
        assert first.served_at and f"{server.url} serves version 1 after" in first.reasons[-1]
        assert store.client.api.get_model_version(MODEL, "1").tags["housing.served_at.staging"] == first.served_at
        unseen = train(home, *WORSE, "model.estimator.max_depth=3")
        assert not promote_rentals(f"run_id={unseen.run_id}", "force=true", "force_reason=without the server").served_at
        train(home, *BETTER)
        result = run_promote(home, f"serve.url={server.url}")
        assert result.code == 0 and f"{server.url} serves version 3" in result.out
        _, result = run_rollback(home, server.url)
        assert result.code == 0 and "ROLLBACK  housing-rentals at alias staging" in result.out
        assert server.ask("/model").json["version"] == "1"  # version 2 was never served
    stopped = command(home, "housing.rollback", *TABLE, f"serve.url={server.url}", "serve.wait_seconds=1", "version=3")
    assert stopped.code == 1 and f"{server.url} does not serve version 3 after 1 s" in stopped.out
    newest, *older = list_decisions(store, "rentals-decisions")
    assert (newest.verdict, newest.version, newest.served_at) == ("ROLLBACK", "3", "") and older[0].served_at


@pytest.mark.long
def test_a_server_that_follows_another_alias_does_not_count_as_served(home: Path) -> None:
    train(home, *BETTER)
    promote_rentals()
    with serving(home) as server:
        wait_for(lambda: server.answers("/readyz"), "version 1 is served")
        decision = promote_rentals("alias=production", "evaluate=quick", f"serve.url={server.url}", "serve.wait_seconds=1")
        assert (decision.verdict, decision.served_at) == ("PROMOTE", "")
        assert decision.reasons[-1].endswith("does not serve version 1 after 1 s: it serves alias staging")
