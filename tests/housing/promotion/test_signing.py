"""Signed promotions: when a version is signed, with which key, and that servers with trusted keys serve no other."""

import json
import signal
from pathlib import Path

import pytest

from housing.core.errors import BundleError, ConfigError
from housing.core.files import sha256
from housing.promotion.approval import approve
from housing.promotion.decision import Decision
from housing.promotion.decision_log import list_decisions
from housing.server_files.signatures import TAG_PREFIX
from tests.support.commands import command
from tests.support.homes import copy_home
from tests.support.promotions import MODEL, TABLE, WORSE, at_home, open_store, promote_rentals
from tests.support.server import serving
from tests.support.signing_keys import new_key
from tests.support.tables import config, train
from tests.support.waiting import wait_for

pytest.importorskip("model_signing", reason="the extra `sign` is not installed")

NEEDED = "approval_required=[production]"
PRODUCTION = ("alias=production", "evaluate=quick", NEEDED)
QUICK = "gate.smoke_test_seconds=null"
REMOVED = "Removing the untrusted release 1-"


def approve_rentals(*overrides: str) -> Decision:
    """Approve on the table `rentals` in this process."""
    return approve(config("approve", "data=rentals", NEEDED, *overrides))


def signers(home: Path, version: str) -> set[str]:
    """Return the fingerprints of the keys that signed a version."""
    tags = open_store(home).registry.tags_of_version(MODEL, version)
    return {tag.removeprefix(TAG_PREFIX) for tag in tags if tag.startswith(TAG_PREFIX)}


def test_a_version_is_signed_as_it_moves_and_the_history_names_the_key(served_home: Path, tmp_path: Path) -> None:
    (ann, ann_public), (bob, bob_public) = new_key(tmp_path, "ann"), new_key(tmp_path, "bob")
    again = promote_rentals(f"signing_key={ann}", "actor=ann")
    assert (again.verdict, again.version, again.signed_by) == ("HOLD", "1", sha256(ann_public))
    assert signers(served_home, "1") == {sha256(ann_public)}

    requested = promote_rentals(*PRODUCTION, "actor=ann", f"signing_key={ann}")
    assert (requested.verdict, requested.needs_signature, requested.signed_by) == ("PENDING", True, "")
    assert requested.next_command.endswith("signing_key=FILE")
    with pytest.raises(ConfigError, match="^ann has requested that version 1 at production is signed.* signing_key=FILE"):
        approve_rentals("actor=bob")
    approved = approve_rentals("actor=bob", f"signing_key={bob}")
    assert approved.signed_by == sha256(bob_public)
    assert signers(served_home, "1") == {sha256(ann_public), sha256(bob_public)}
    history = list_decisions(open_store(served_home), "rentals-decisions")
    assert [(one.verdict, one.actor, one.signed_by) for one in history[:3]] == [
        ("PROMOTE", "bob", sha256(bob_public)),
        ("PENDING", "ann", ""),
        ("HOLD", "ann", sha256(ann_public)),
    ]
    shown = command(served_home, "housing.history", *TABLE, "limit=1")
    assert f"signed with key {sha256(bob_public)}" in shown.out, shown.err

    open_store(served_home).client.api.delete_registered_model_alias(MODEL, "production")
    promote_rentals(*PRODUCTION, "actor=ann")
    damage(served_home)
    with pytest.raises(BundleError, match="was not signed: its bundle is no longer the one that was judged"):
        approve_rentals("actor=bob", f"signing_key={bob}")
    assert open_store(served_home).registry.version_at(MODEL, "production") is None


def damage(home: Path) -> None:
    """Change the bundle of the only version in the store, and its checksums with it."""
    (card,) = (home / "mlartifacts").rglob("card.json")
    card.write_bytes(card.read_bytes().replace(b'"rentals"', b'"Rentals"', 1))
    sums = card.with_name("SHA256SUMS")
    lines = [line for line in sums.read_text(encoding="utf-8").splitlines() if not line.endswith("  card.json")]
    sums.write_text("\n".join([*lines, f"{sha256(card)}  card.json", ""]), encoding="utf-8")


def test_what_cannot_sign_is_an_error_before_anything_is_judged(served_home: Path, tmp_path: Path) -> None:
    _, public = new_key(tmp_path, "ann")
    n_decisions = len(list_decisions(open_store(served_home), "rentals-decisions"))
    for path in (public, tmp_path / "missing.key"):
        with pytest.raises(
            ConfigError, match=r"^signing_key must be a PEM file of a private ECDSA key .* openssl ecparam"
        ) as error:
            promote_rentals(f"signing_key={path}")
        assert (f"-out {path}" in str(error.value)) == (not path.exists())  # else the command would replace a key
    assert len(list_decisions(open_store(served_home), "rentals-decisions")) == n_decisions


def published_cards(home: Path) -> list[Path]:
    """Return the card of the published release, if there is one."""
    return list((home / "serving").glob("*/current/bundle/card.json"))


def change_byte(home: Path) -> None:
    """Change one byte of the published release."""
    (card,) = published_cards(home)
    card.write_bytes(card.read_bytes().replace(b" ", b"\t", 1))


@pytest.mark.long
def test_a_server_with_trusted_keys_serves_what_they_signed_through_promotion_rotation_and_tampering(
    tmp_path: Path, promoted_home: Path
) -> None:
    (ann, ann_public), (bob, bob_public) = new_key(tmp_path, "ann"), new_key(tmp_path, "bob")
    home = tmp_path / "home"
    copy_home(promoted_home, home)
    both = f"serve.trusted_keys=[{ann_public},{bob_public}]"
    with at_home(home):
        other = f"run_id={train(home, *WORSE).run_id}"
        force = (other, "force=true", "force_reason=test", QUICK)
        with serving(home, both) as server:
            wait_for(lambda: "is not signed" in server.log.read_text(encoding="utf-8"), "version 1 is refused")
            assert not server.answers("/readyz")
            signed = command(home, "housing.promote", *TABLE, f"signing_key={ann}", "output=json")
            assert json.loads(signed.out)["result"]["signed_by"] == sha256(ann_public), signed.err
            wait_for(lambda: server.answers("/readyz"), "version 1 is served")

            unsigned = promote_rentals(*force)
            assert unsigned.version == "2" and any("version 2 is not signed" in reason for reason in unsigned.reasons)
            wait_for(lambda: "Version 2 of" in server.log.read_text(encoding="utf-8"), "version 2 is refused")
            assert server.ask("/model").json["version"] == "1"
            assert promote_rentals(other, f"signing_key={bob}").signed_by == sha256(bob_public)
            wait_for(lambda: server.ask("/model").json["version"] == "2", "version 2 is served")
            rolled_back = command(home, "housing.rollback", *TABLE)
            assert rolled_back.code == 0, rolled_back.err
            wait_for(lambda: server.ask("/model").json["version"] == "1", "version 1 is served with its own signature")

            change_byte(home)
            wait_for(lambda: REMOVED in server.log.read_text(encoding="utf-8"), "the changed release is removed")
            wait_for(lambda: len(published_cards(home)) == 1, "version 1 is pulled again")
            workers = server.workers()
            server.process.send_signal(signal.SIGHUP)
            wait_for(lambda: not set(workers) & set(server.workers()), "all workers are new")
            wait_for(lambda: server.answers("/readyz"), "they serve version 1")
        change_byte(home)
        with serving(home, both) as server:
            wait_for(lambda: server.answers("/readyz"), "the puller has pulled the release again")
            assert REMOVED in server.log.read_text(encoding="utf-8")
            assert server.ask("/model").json["version"] == "1"
        with serving(home, f"serve.trusted_keys={bob_public}") as server:
            wait_for(lambda: "which is none of" in server.log.read_text(encoding="utf-8"), "the key of version 1 has gone")
            assert not server.answers("/readyz")
