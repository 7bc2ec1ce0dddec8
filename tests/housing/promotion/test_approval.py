"""Approval by a second person: the request, who may approve it, and what must not have changed since."""

import json
from pathlib import Path

import pandas as pd
import pytest

from housing import Project
from housing.core.canary import Canary
from housing.core.errors import ConfigError, StoreError
from housing.promotion.approval import approve
from housing.promotion.canary import take_over
from housing.promotion.decision import Decision
from housing.promotion.history import read_history
from housing.promotion.rolling_back import rollback
from housing.promotion.settings import AliasSettings
from tests.support.commands import command
from tests.support.promotions import BETTER, MODEL, TABLE, WORSE, open_store, promote_rentals
from tests.support.tables import TABLES, config, train

NEEDED = "approval_required=[production]"
PRODUCTION = ("alias=production", "evaluate=quick", NEEDED)


def approve_rentals(*overrides: str) -> Decision:
    """Approve on the table `rentals` in this process."""
    return approve(config("approve", "data=rentals", NEEDED, *overrides))


@pytest.fixture
def requested(served_home: Path) -> Decision:
    """The request of ann to move production to version 1, which is at staging."""
    assert served_home.is_dir()
    return promote_rentals(*PRODUCTION, "actor=ann")


def test_a_request_moves_nothing_until_another_person_approves_it(requested: Decision, served_home: Path) -> None:
    registry = open_store(served_home).registry
    assert (requested.verdict, requested.version, requested.requested_version) == ("PENDING", None, "1")
    assert requested.checks and requested.challenger_metrics
    assert registry.version_at(MODEL, "production") is None
    assert requested.next_command.startswith("python -m housing.approve") and "version=1" in requested.next_command
    with pytest.raises(ConfigError, match="^ann has requested version 1 at production. Another person must approve it"):
        approve_rentals("actor=ann")
    with pytest.raises(ConfigError, match="^The open request for production is about version 1 \\(got version=2\\)"):
        approve_rentals("actor=bob", "version=2")

    shown = command(served_home, "housing.approve", *TABLE, NEEDED, "actor=bob", "version=1", "output=json")
    document = json.loads(shown.out)["result"]
    assert (document["verdict"], document["actor"], document["requested_by"]) == ("PROMOTE", "bob", "ann"), shown.err
    assert document["reasons"][0] == "requested by ann, approved by bob"
    assert document["checks"] == [check.__dict__ for check in requested.checks]
    assert registry.version_at(MODEL, "production") == "1"
    description = open_store(served_home).client.api.get_model_version(MODEL, "1").description
    assert description is not None and "moved by bob, requested by ann." in description
    with pytest.raises(StoreError, match="^There is no open request for production of housing-rentals. Request one with: "):
        approve_rentals("actor=bob")

    history = Project(served_home, "data=rentals", config_dir=TABLES).history("alias=production")
    assert history.verdict.to_list() == ["PROMOTE", "PENDING"]
    assert history.requested_by.to_list() == ["ann", ""] and history.requested_version.to_list() == ["1", "1"]
    assert history.run_id.nunique() == 1 and history.table.nunique() == 1 and "" not in set(history.decision_id)
    exported = command(served_home, "housing.history", *TABLE, "alias=production", "limit=1", f"export={served_home}/d.json")
    assert exported.code == 0 and "d.json" in exported.out, exported.err
    records = json.loads((served_home / "d.json").read_text(encoding="utf-8"))
    assert [record["verdict"] for record in records] == ["PROMOTE", "PENDING"]
    assert (
        records[0]["evidence"]["checks"] == document["checks"] and records[0]["evidence"]["request"] == records[1]["decision_id"]
    )
    read_history(config("history", "data=rentals", f"export={served_home}/d.csv"))
    lines = pd.read_csv(served_home / "d.csv", dtype=str, keep_default_na=False)
    assert lines.actor.to_list()[:2] == ["bob", "ann"] and len(lines) == 3
    assert float(lines["metrics.challenger_rmse"][0]) == pytest.approx(requested.challenger_metrics["rmse"])
    with pytest.raises(ConfigError, match="export must be a path that ends in .json or .csv"):
        read_history(config("history", "data=rentals", "export=d.xlsx"))
    with pytest.raises(ConfigError, match="returns only to a version that was there before: none \\(got version=2\\)"):
        rollback(config("rollback", "data=rentals", "alias=production", NEEDED, "version=2"))


def test_what_has_changed_since_the_request_must_be_requested_again(home: Path) -> None:
    train(home, *WORSE)
    promote_rentals()
    first = promote_rentals(*PRODUCTION, "actor=ann")
    train(home, *BETTER)
    promote_rentals()
    with pytest.raises(StoreError, match="^The request for production .*: the version at staging was 1 and is 2. Request it"):
        approve_rentals("actor=bob")
    second = promote_rentals(*PRODUCTION, "actor=ann")
    assert (first.requested_version, second.requested_version) == ("1", "2")
    open_store(home).registry.set_alias(MODEL, "production", "1")
    with pytest.raises(StoreError, match="the version at production was none and is 1"):
        approve_rentals("actor=bob")
    open_store(home).client.api.delete_registered_model_alias(MODEL, "production")
    table = home / "data" / "rentals.csv"
    pd.read_csv(table).iloc[:-1].to_csv(table, index=False)
    with pytest.raises(StoreError, match="the table was .* and is "):
        approve_rentals("actor=bob")
    assert open_store(home).registry.version_at(MODEL, "production") is None


def test_a_canary_does_not_take_over_without_approval(served_home: Path) -> None:
    alias = AliasSettings.from_config(config("promote", "data=rentals", "alias=production", NEEDED))
    with pytest.raises(ConfigError, match="^production requires approval .* version 2 cannot take over"):
        take_over(alias, open_store(served_home), Canary("2", "1", 0.5, 0.0), [])
