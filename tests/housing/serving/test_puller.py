"""The puller, poll by poll."""

import os
import shutil
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import mlflow
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from housing.bundle.bundle import Bundle
from housing.core.canary import Canary
from housing.core.errors import ConfigError, StoreError, UntrustedError
from housing.core.files import sha256
from housing.server_files import releases
from housing.server_files.signatures import TAG_PREFIX
from housing.serving import puller
from housing.serving.storage_initializer import initialize
from housing.serving.supervisor import server_environment
from housing.tracking import store as tracking
from server.core.settings import Settings
from tests.support.signing_keys import new_key, sign, trusted
from tests.support.tables import config, train
from tests.support.waiting import wait_for


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    """Return a metrics registry per test, since a process can register each metric only once."""
    own = CollectorRegistry()
    for kind in (Counter, Gauge):
        monkeypatch.setattr(puller, kind.__name__, partial(kind, registry=own))
    return own


def registered(home_: Path) -> Settings:
    """Register a model of the rentals as versions 1 and 2."""
    run_id = str(train(home_, "model=linear", "interval=none", "figures=false").run_id)
    for _ in range(2):
        store().registry.register("housing-rentals", run_id)
    settings = Settings.from_environment(server_environment(config("serve", "data=rentals", "serve.poll_seconds=0.3").serve))
    mlflow.set_tracking_uri(settings.tracking_uri)
    return settings


def new_puller(settings: Settings) -> puller.Puller:
    """Return a puller that follows the alias of the settings."""
    return puller.Puller(settings, puller.PullerMetrics(settings))


def store() -> tracking.Store:
    """Return the store of this test's home."""
    return tracking.connect(config("train", "data=rentals").mlflow)


def test_a_damaged_current_version_does_not_block_the_next(home: Path, registry: CollectorRegistry) -> None:
    settings = registered(home)
    follows = new_puller(settings)
    store().registry.set_alias("housing-rentals", "staging", "1")
    assert follows.poll_once() == "Published housing-rentals version 1"
    (card,) = home.rglob("serving/**/card.json")
    card.write_text("damaged", encoding="utf-8")
    store().registry.set_alias("housing-rentals", "staging", "2")
    assert follows.poll_once() == "Published housing-rentals version 2"
    assert registry.get_sample_value("housing_versions_rejected_total") == 0
    assert releases.current_release(settings.release_dir) != card.parents[1]


def test_a_release_that_is_damaged_on_disk_is_pulled_again(home: Path, registry: CollectorRegistry) -> None:
    settings = registered(home)
    follows = new_puller(settings)
    store().registry.set_alias("housing-rentals", "staging", "1")
    assert follows.poll_once() == "Published housing-rentals version 1"
    store().registry.start_canary("housing-rentals", "staging", Canary("2", "1", 0.5, 0.0))
    for _ in range(2):
        assert follows.poll_once() == ""
    published = releases.current_release(settings.release_dir), releases.canary_release(settings.release_dir)
    assert published[0] is not None and published[1] is not None
    for release, message in ((published[0], "Published housing-rentals version 1"), (published[1][0], "")):
        for name in ("bundle/card.json", "bundle/members/0/model.onnx", "bundle/added", releases.RELEASE_FILE):
            damage(release / name)
            assert follows.poll_once() == message, name
            Bundle.read(release / releases.BUNDLE)
            assert releases.release_info(release)["model"] == "housing-rentals"
            assert published == (releases.current_release(settings.release_dir), releases.canary_release(settings.release_dir))
    assert registry.get_sample_value("housing_versions_rejected_total") == 0


def damage(file: Path) -> None:
    """Change the first byte of a file, but neither its size nor its time, or create it."""
    if not file.exists():
        file.touch()
        return
    status, content = file.stat(), file.read_bytes()
    file.write_bytes(b"\0" + content[1:])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("nothing://user:secret@host/name", "unsupported URI"),
        ("sqlite:///{home}/data/rentals.csv", "file is not a database"),
        ("http://user:secret@127.0.0.1:9", "Connection refused"),
    ],
)
def test_what_is_no_store_is_reported_without_its_password(
    home: Path, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, uri: str, reason: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    overrides = ("data=rentals", f"mlflow.tracking_uri={uri.format(home=home)}")
    follows = new_puller(Settings.from_environment(server_environment(config("serve", *overrides).serve)))
    with pytest.raises(StoreError, match=rf"^Could not read the MLflow store .*{reason}") as raised:
        follows.poll_once()
    assert "secret" not in str(raised.value)
    assert registry.get_sample_value("housing_versions_rejected_total") == 0


def test_a_failed_download_is_retried_with_backoff_and_counted_once(
    home: Path, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "puller")
    follows = new_puller(registered(home))
    store().registry.set_alias("housing-rentals", "staging", "1")
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    for pause in ("0.3", "0.6"):
        with pytest.raises(FileNotFoundError, match="/nowhere"):
            wait_for(lambda: bool(follows.poll_once()), "it is tried again")
        assert follows.poll_once() == ""
        assert caplog.text.strip().endswith(f"in {pause} s")
        assert (
            registry.get_sample_value("housing_version_rejected")
            == registry.get_sample_value("housing_versions_rejected_total")
            == 1
        )
    monkeypatch.setattr(tempfile, "tempdir", None)
    wait_for(lambda: follows.poll_once() == "Published housing-rentals version 1", "there is room again")
    assert registry.get_sample_value("housing_version_rejected") == 0


def test_kserves_storage_initializer_publishes_the_version_at_an_alias(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = registered(home)
    for name, value in server_environment(config("serve", "data=rentals").serve).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="must be mlflow://MODEL@ALIAS"):
        initialize("s3://housing-rentals@staging", home)
    with pytest.raises(StoreError, match="housing-rentals has no version at alias staging"):
        initialize("mlflow://housing-rentals@staging", home)
    store().registry.set_alias("housing-rentals", "staging", "2")
    assert initialize("mlflow://housing-rentals@staging", home / "models") == "2"
    release = releases.current_release(home / "models" / "releases")
    assert release is not None
    info = releases.release_info(release)
    assert (info["model"], info["version"], info["alias"]) == (settings.model, "2", "staging")


def sign_version(version: str, private: Path, fingerprint: str) -> None:
    """Sign a version of the rentals, as a promotion does."""
    with store().artifacts.bundle(f"models:/housing-rentals/{version}") as directory:
        text = sign(private, directory, "housing-rentals", version)
    store().registry.tag_version("housing-rentals", version, f"{TAG_PREFIX}{fingerprint}", text)


@pytest.mark.usefixtures("registry")
def test_only_signed_versions_are_published_and_a_signature_may_come_later(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("model_signing", reason="the extra `sign` is not installed")
    caplog.set_level("INFO", "puller")
    private, public = new_key(home, "ann")
    unsigned = registered(home)
    store().registry.set_alias("housing-rentals", "staging", "1")
    assert new_puller(unsigned).poll_once() == "Published housing-rentals version 1"  # before there was a key
    settings = replace(unsigned, trusted_keys=trusted(public))
    monitored = puller.PullerMetrics(settings, "housing_again")
    follows = puller.Puller(settings, monitored)
    assert "Removing the untrusted release 1-" in caplog.text
    for _ in range(2):
        follows.step()
    assert caplog.text.count("Version rejected") == 1 and "it is not signed. Sign it with:" in caplog.text
    assert releases.current_release(settings.release_dir) is None
    sign_version("1", private, sha256(public))
    assert follows.poll_once() == "Published housing-rentals version 1"
    store().registry.set_alias("housing-rentals", "staging", "2")
    with pytest.raises(UntrustedError, match="Version 2 of housing-rentals is not trusted"):
        follows.poll_once()
    current = releases.current_release(settings.release_dir)
    assert current is not None and current.name.startswith("1-")

    store().registry.set_alias("housing-rentals", "staging", "1")
    assert follows.poll_once() == ""
    canary = Canary("2", "1", 0.5, 0.0)
    store().registry.start_canary("housing-rentals", "staging", canary)
    follows.step()
    assert releases.canary_release(settings.release_dir) is None and "Canary version 2 rejected: UntrustedError" in caplog.text
    sign_version("2", private, sha256(public))
    follows.step()
    published = releases.canary_release(settings.release_dir)
    assert published is not None and published[0].name.startswith("2-")
    for release in (current, published[0]):
        card = release / releases.BUNDLE / "card.json"
        card.write_bytes(card.read_bytes().replace(b"rentals", b"Rentals", 1))
        sums = card.with_name("SHA256SUMS")
        lines = [line for line in sums.read_text(encoding="utf-8").splitlines() if not line.endswith("  card.json")]
        sums.write_text("\n".join([*lines, f"{sha256(card)}  card.json", ""]), encoding="utf-8")
    puller.remove_damaged(settings)
    assert releases.current_release(settings.release_dir) is None is releases.canary_release(settings.release_dir)
    assert follows.poll_once() == "Published housing-rentals version 1"
    assert releases.canary_release(settings.release_dir) is not None
    shutil.rmtree(settings.release_dir)
