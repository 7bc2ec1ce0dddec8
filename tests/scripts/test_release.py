"""scripts/release: the gate, a smoke test of the production server, and a rollback if the test fails."""

import os
import subprocess
from pathlib import Path

import pytest

from housing.core.environment import PROJECT
from housing.promotion.promotion import promote
from tests.support.commands import CommandResult
from tests.support.promotions import BETTER, MODEL, TABLE, WORSE, open_store
from tests.support.server import new_key, serving
from tests.support.tables import config, train

QUICK = ("evaluate=quick", "gate.smoke_test_seconds=null", "serve.wait_seconds=5")


def release(*arguments: str, **environment: str) -> CommandResult:
    """Run scripts/release."""
    command = [str(PROJECT / "scripts" / "release"), *arguments]
    process = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    return CommandResult(process.returncode, process.stdout, process.stderr)


@pytest.mark.parametrize("arguments", [(), ("",), ("data=rentals",)])
def test_without_a_server_no_model_is_promoted(home: Path, arguments: tuple[str, ...]) -> None:
    result = release(*arguments, HOUSING_HOME=str(home))
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("usage: scripts/release URL [OVERRIDE...]")


@pytest.mark.long
def test_the_server_is_tested_after_every_promotion_and_a_failure_rolls_back(home: Path) -> None:
    key, line = new_key("release", "predict")
    train(home, *WORSE)
    promote(config("promote", "data=rentals"))
    (home / "file").touch()
    with serving(home, "serve.alias=production", environment={"HOUSING_KEYS": line}) as server:
        broken = release(server.url, *TABLE, *QUICK, f"out={home}/file/decision.json", HOUSING_KEY=key)
        assert broken.code == 1 and '"version": "1"' in broken.out  # the error occurs after the alias has moved
        train(home, *BETTER)
        promote(config("promote", "data=rentals"))
        keyless = release(server.url, *TABLE, *QUICK, "force=true", "force_reason=to see it fail", HOUSING_KEY="")
        assert keyless.code == 1 and "ROLLBACK  housing-rentals at alias production" in keyless.out
        assert open_store(home).registry.version_at(MODEL, "production") == "1"
        assert release(server.url, *TABLE, *QUICK, "force=true", "force_reason=it has a key now", HOUSING_KEY=key).code == 0
        assert open_store(home).registry.version_at(MODEL, "production") == "2"
