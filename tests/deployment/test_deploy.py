"""Rolling deployment of a new API version behind a real nginx, while clients send requests."""

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

pytestmark = [pytest.mark.docker, pytest.mark.skipif(bool(engine.missing()), reason=engine.missing() or "nothing is missing")]

NAME = "housing-rolling"
FILES = "compose.yml:compose/rolling.yml:rolling-tests.yml"
INSTANCES = ("api", "api-2")
ENVIRONMENT = "POSTGRES_PASSWORD=a\nS3_SECRET=b\nGRAFANA_PASSWORD=c\nTABLE=rentals\nVERSION=one\n"
# The model is part of the image. No ports are published.
OVERRIDE = """
services:
  api: {volumes: !override ["log:/log", "metrics:/metrics"]}
  api-2: {volumes: !override ["log:/log", "metrics-2:/metrics"], environment: {HOUSING_PORT: "${PORT_OF_2:-8000}"}}
  proxy: {ports: !reset []}
"""


@pytest.fixture(scope="module")
def deployment_clone(tmp_path_factory: pytest.TempPathFactory, rentals_server: Server) -> Path:
    """A clone with four versions of the serve image: `one`, `two` and `three` contain a model, and `bad` cannot start."""
    directory = clone(tmp_path_factory.mktemp("deploy") / "clone")
    shutil.copytree(rentals_server.log.parent / "serving" / "rentals-staging", directory / "serving" / "rentals", symlinks=True)
    build(directory, "serve", VERSION="one", PUBLISHED="serving/rentals", TABLE="rentals")
    derive_image("two", "ENV RELEASE=two")
    derive_image("three", "ENV RELEASE=three")
    derive_image("bad", "ENV HOUSING_PORT=no-port")
    for image in (f"housing-{target}:{version}" for target in ("pull", "train") for version in ("two", "three", "bad")):
        docker("tag", "housing-serve:one", image)  # deploy requires these images and starts none of them
    (directory / "rolling-tests.yml").write_text(OVERRIDE, encoding="utf-8")
    return directory


def derive_image(version: str, line: str) -> None:
    """Build a version of the serve image from version `one` and another line of its Dockerfile."""
    content = f"FROM housing-serve:one\n{line}\n".encode()
    subprocess.run(["docker", "build", "--quiet", "--tag", f"housing-serve:{version}", "-"], input=content, check=True)


def run(directory: Path, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in the clone, with the compose files of two instances behind the proxy."""
    environ = {**os.environ, "COMPOSE_FILE": FILES, "COMPOSE_PROJECT_NAME": NAME, **variables}
    return subprocess.run(command, cwd=directory, env=environ, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def rolling(deployment_clone: Path) -> Iterator[Path]:
    """Both instances of version `one` behind the proxy."""
    (deployment_clone / ".env").write_text(ENVIRONMENT, encoding="utf-8")
    try:
        started = run(deployment_clone, "docker", "compose", "up", "--detach", "--wait", "proxy")
        assert started.returncode == 0, started.stderr
        yield deployment_clone
    finally:
        run(deployment_clone, "docker", "compose", "down", "--volumes", "--timeout", "2")


def versions() -> set[str]:
    """Return the images of the running instances."""
    return {inspect(f"{NAME}-{instance}-1", ".Config.Image") for instance in INSTANCES}


def test_a_good_version_replaces_the_old_one_without_a_failed_request(rolling: Path) -> None:
    with callers(address(f"{NAME}-proxy-1"), FLAT, keep_alive=False) as results:
        deploy = run(rolling, "./scripts/deploy", "two")
    print(f"rolled out: {results.requests} requests, {len(results.failed)} failed")
    assert deploy.returncode == 0, deploy.stdout + deploy.stderr
    assert versions() == {"housing-serve:two"}
    assert results.requests > 100 and not results.failed
    assert "VERSION=two" in (rolling / ".env").read_text(encoding="utf-8")


def test_a_bad_version_is_rolled_back_without_a_failed_request(rolling: Path) -> None:
    before = versions()
    with callers(address(f"{NAME}-proxy-1"), FLAT, keep_alive=False) as results:
        started = time.monotonic()
        deploy = run(rolling, "./scripts/deploy", "bad")
        duration = time.monotonic() - started
    print(f"rolled back after {duration:.1f} s: {results.requests} requests, {len(results.failed)} failed")
    assert deploy.returncode == 1
    assert "api of version bad does not predict; rolling back to" in deploy.stderr
    assert versions() == before
    assert results.requests > 100 and not results.failed
    assert "bad" not in (rolling / ".env").read_text(encoding="utf-8")


def test_a_version_with_a_missing_image_is_not_deployed(rolling: Path) -> None:
    before = versions()
    deploy = run(rolling, "./scripts/deploy", "one")
    assert deploy.returncode == 1
    assert "image housing-pull:one does not exist" in deploy.stderr
    assert versions() == before


def test_no_instance_is_replaced_while_another_one_fails(rolling: Path) -> None:
    before = versions()
    run(rolling, "docker", "compose", "stop", "--timeout", "2", "api-2")
    deploy = run(rolling, "./scripts/deploy", "two")
    run(rolling, "docker", "compose", "start", "api-2")
    assert deploy.returncode == 1
    assert "api-2 does not predict at present" in deploy.stderr
    assert versions() == before


def test_an_instance_that_cannot_roll_back_does_not_stop_the_rollback_of_the_other(rolling: Path) -> None:
    """The second instance can start with neither version, so the proxy uses the first, which has its previous version."""
    before = versions()
    deploy = run(rolling, "./scripts/deploy", "three", PORT_OF_2="no-port")
    assert deploy.returncode == 1
    assert "api-2 of version" in deploy.stderr and "does not predict either" in deploy.stderr
    assert versions() == before
    with callers(address(f"{NAME}-proxy-1"), FLAT, keep_alive=False) as results:
        wait_for(lambda: results.requests > 100, "the first instance serves requests")
    assert not results.failed
