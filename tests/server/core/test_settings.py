"""Where the server's settings come from."""

import os

import pytest

from housing.core.errors import ConfigError
from server.core.settings import Settings
from tests.support.tables import config

MADE_OF_OTHERS = ("model", "tracking_uri", "release_dir", "log_dir")  # in conf/serve.yaml


@pytest.fixture
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HOUSING_")]:
        monkeypatch.delenv(name)
    for name in MADE_OF_OTHERS:
        monkeypatch.setenv(f"HOUSING_{name.upper()}", f"/{name}")


@pytest.mark.usefixtures("_nothing_said")
def test_what_the_environment_does_not_say_is_as_the_config_says() -> None:
    settings, said = Settings.from_environment(), config("serve").serve
    plain = [name for name in said if name not in MADE_OF_OTHERS]
    assert len(plain) > 20
    assert {name: getattr(settings, name) for name in plain} == {name: said[name] for name in plain}


@pytest.mark.usefixtures("_nothing_said")
def test_the_environment_goes_before_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUSING_PORT", "9123")
    assert Settings.from_environment().port == 9123


@pytest.mark.usefixtures("_nothing_said")
@pytest.mark.parametrize("name", MADE_OF_OTHERS)
def test_what_the_config_makes_of_other_values_has_to_be_said(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(f"HOUSING_{name.upper()}")
    with pytest.raises((ConfigError, ValueError), match=f"HOUSING_{name.upper()} is missing"):
        Settings.from_environment()
