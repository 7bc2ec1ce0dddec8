"""A model is released: the gate, a smoke test of the server that follows production, and back where that fails."""

import os
import subprocess
from pathlib import Path

import pytest

from housing.core.environment import PROJECT
from housing.promotion.promotion import promote
from tests.support.commands import Ended
from tests.support.promotions import BETTER, MODEL, TABLE, WORSE, opened
from tests.support.server import new_key, serving
from tests.support.tables import config, train

QUICK = ("evaluate=quick", "gate.smoke_test_seconds=null", "serve.wait_seconds=5")


def released(*arguments: str, **environment: str) -> Ended:
    """Release as a person does."""
    asked = [str(PROJECT / "scripts" / "release"), *arguments]
    done = subprocess.run(asked, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("arguments", [(), ("",), ("data=rentals",)])
def test_without_a_server_nothing_is_promoted(home: Path, arguments: tuple[str, ...]) -> None:
    ended = released(*arguments, HOUSING_HOME=str(home))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("usage: scripts/release URL [OVERRIDE...]")


@pytest.mark.long
def test_wherever_production_moved_the_server_is_tested_and_what_fails_goes_back(home: Path) -> None:
    key, line = new_key("release", "predict")
    train(home, *WORSE)
    promote(config("promote", "data=rentals"))
    (home / "file").touch()
    with serving(home, "serve.alias=production", environment={"HOUSING_KEYS": line}) as server:
        broken = released(server.url, *TABLE, *QUICK, f"out={home}/file/decision.json", HOUSING_KEY=key)
        assert broken.code == 1 and '"version": "1"' in broken.out  # an error after the alias had moved
        train(home, *BETTER)
        promote(config("promote", "data=rentals"))
        keyless = released(server.url, *TABLE, *QUICK, "force=true", "force_reason=to see it fail", HOUSING_KEY="")
        assert keyless.code == 1 and "ROLLBACK  housing-rentals at alias production" in keyless.out
        assert opened(home).registry.version_at(MODEL, "production") == "1"
        assert released(server.url, *TABLE, *QUICK, "force=true", "force_reason=it has a key now", HOUSING_KEY=key).code == 0
        assert opened(home).registry.version_at(MODEL, "production") == "2"
