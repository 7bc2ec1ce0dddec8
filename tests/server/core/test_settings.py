"""Server settings from environment and config."""

import os

import pytest

from housing.core.errors import ConfigError
from server.core.settings import Settings
from tests.support.tables import config

MADE_OF_OTHERS = ("model", "tracking_uri", "release_dir", "log_dir")  # in conf/serve.yaml


@pytest.fixture
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HOUSING_")]:
        monkeypatch.delenv(name)
    for name in MADE_OF_OTHERS:
        monkeypatch.setenv(f"HOUSING_{name.upper()}", f"/{name}")


@pytest.mark.usefixtures("_clean_environment")
def test_unset_variables_default_to_the_config() -> None:
    settings, configured = Settings.from_environment(), config("serve").serve
    plain = [name for name in configured if name not in (*MADE_OF_OTHERS, "trusted_keys")]
    assert configured["trusted_keys"] == "" and not settings.trusted_keys  # which are read from files
    assert len(plain) > 20
    assert {name: getattr(settings, name) for name in plain} == {name: configured[name] for name in plain}


@pytest.mark.usefixtures("_clean_environment")
def test_the_environment_overrides_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUSING_PORT", "9123")
    assert Settings.from_environment().port == 9123


@pytest.mark.usefixtures("_clean_environment")
@pytest.mark.parametrize("name", MADE_OF_OTHERS)
def test_interpolated_settings_are_required(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(f"HOUSING_{name.upper()}")
    with pytest.raises((ConfigError, ValueError), match=f"HOUSING_{name.upper()} is missing"):
        Settings.from_environment()
