"""A new version of the API, rolled out behind a real nginx while callers ask."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import docker_engine as engine
from tests.support.docker_engine import address, build, callers, clone, docker, inspect
from tests.support.server import Server
from tests.support.tables import FLAT
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.skipif(bool(engine.missing()), reason=engine.missing() or "all is there")]

NAME = "housing-rolling"
FILES = "compose.yml:compose/rolling.yml:rolling-tests.yml"
INSTANCES = ("api", "api-2")
ENVIRONMENT = "POSTGRES_PASSWORD=a\nS3_SECRET=b\nGRAFANA_PASSWORD=c\nTABLE=rentals\nVERSION=one\n"
# The model is in the image; no ports are published.
OVERRIDE = """
services:
  api: {volumes: !override ["log:/log", "metrics:/metrics"]}
  api-2: {volumes: !override ["log:/log", "metrics-2:/metrics"], environment: {HOUSING_PORT: "${PORT_OF_2:-8000}"}}
  proxy: {ports: !reset []}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, rentals_server: Server) -> Path:
    """A clone whose version `one` of serve has a model in it; `two` and `three` are as good, `bad` cannot start."""
    found = clone(tmp_path_factory.mktemp("deploy") / "clone")
    shutil.copytree(rentals_server.log.parent / "serving" / "rentals-staging", found / "serving" / "rentals", symlinks=True)
    build(found, "serve", VERSION="one", PUBLISHED="serving/rentals", TABLE="rentals")
    made_from_one("two", "ENV RELEASE=two")
    made_from_one("three", "ENV RELEASE=three")
    made_from_one("bad", "ENV HOUSING_PORT=no-port")
    for image in (f"housing-{target}:{version}" for target in ("pull", "train") for version in ("two", "three", "bad")):
        docker("tag", "housing-serve:one", image)  # deploy wants them to be there, and starts none of them
    (found / "rolling-tests.yml").write_text(OVERRIDE, encoding="utf-8")
    return found


def made_from_one(version: str, line: str) -> None:
    """Make another version of serve."""
    content = f"FROM housing-serve:one\n{line}\n".encode()
    subprocess.run(["docker", "build", "--quiet", "--tag", f"housing-serve:{version}", "-"], input=content, check=True)


def run(place: Path, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in the clone, with the compose files of two instances behind the proxy."""
    environ = {**os.environ, "COMPOSE_FILE": FILES, "COMPOSE_PROJECT_NAME": NAME, **variables}
    return subprocess.run(command, cwd=place, env=environ, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def rolling(place: Path) -> Iterator[Path]:
    """Both instances of version `one` behind the proxy."""
    (place / ".env").write_text(ENVIRONMENT, encoding="utf-8")
    try:
        started = run(place, "docker", "compose", "up", "--detach", "--wait", "proxy")
        assert started.returncode == 0, started.stderr
        yield place
    finally:
        run(place, "docker", "compose", "down", "--volumes", "--timeout", "2")


def versions() -> set[str]:
    """The image of each instance."""
    return {inspect(f"{NAME}-{instance}-1", ".Config.Image") for instance in INSTANCES}


def test_a_good_version_takes_over_and_no_request_fails(rolling: Path) -> None:
    with callers(address(f"{NAME}-proxy-1"), FLAT, keep_alive=False) as results:
        done = run(rolling, "./scripts/deploy", "two")
    print(f"rolled out: {results.requests} requests, {len(results.failed)} failed")
    assert done.returncode == 0, done.stdout + done.stderr
    assert versions() == {"housing-serve:two"}
    assert results.requests > 100 and not results.failed
    assert "VERSION=two" in (rolling / ".env").read_text(encoding="utf-8")


def test_a_bad_version_is_taken_back_and_no_request_fails(rolling: Path) -> None:
    before = versions()
    with callers(address(f"{NAME}-proxy-1"), FLAT, keep_alive=False) as results:
        begun = time.monotonic()
        done = run(rolling, "./scripts/deploy", "bad")
        took = time.monotonic() - begun
    print(f"taken back after {took:.1f} s: {results.requests} requests, {len(results.failed)} failed")
    assert done.returncode == 1
    assert "api of version bad does not predict; rolling back to" in done.stderr
    assert versions() == before
    assert results.requests > 100 and not results.failed
    assert "bad" not in (rolling / ".env").read_text(encoding="utf-8")


def test_a_version_without_all_its_images_is_not_begun(rolling: Path) -> None:
    before = versions()
    done = run(rolling, "./scripts/deploy", "one")
    assert done.returncode == 1
    assert "image housing-pull:one does not exist" in done.stderr
    assert versions() == before


def test_nothing_is_replaced_while_an_instance_does_not_predict(rolling: Path) -> None:
    before = versions()
    run(rolling, "docker", "compose", "stop", "--timeout", "2", "api-2")
    done = run(rolling, "./scripts/deploy", "two")
    run(rolling, "docker", "compose", "start", "api-2")
    assert done.returncode == 1
    assert "api-2 does not predict at present" in done.stderr
    assert versions() == before


def test_what_cannot_go_back_keeps_no_other_from_it(rolling: Path) -> None:
    """The second instance can start with neither version, so the proxy is left with the first, which is as it was."""
    before = versions()
    done = run(rolling, "./scripts/deploy", "three", PORT_OF_2="no-port")
    assert done.returncode == 1
    assert "api-2 of version" in done.stderr and "does not predict either" in done.stderr
    assert versions() == before
    with callers(address(f"{NAME}-proxy-1"), FLAT, keep_alive=False) as results:
        wait_for(lambda: results.requests > 100, "callers ask the first")
    assert not results.failed
