"""Rolling deployment of a new API version behind a real nginx, while clients send requests."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import docker_engine as engine
from tests.support import registry as registry_support
from tests.support.docker_engine import address, build, callers, clone, docker, inspect
from tests.support.registry import Registry
from tests.support.server import Server
from tests.support.tables import FLAT
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.skipif(bool(engine.missing()), reason=engine.missing() or "nothing is missing")]

NAME = "housing-rolling"
FILES = "compose.yml:compose/rolling.yml:rolling-tests.yml"
INSTANCES = ("api", "api-2")
COMMIT = "c0" * 20  # the version of the images in the registry
BUILT_HERE = {"UNVERIFIED": "yes"}
# stands for gh, which reaches GitHub nowhere in tests: all images are attested. It keeps its arguments.
GH = """#!/bin/sh
echo "$@" >>"$(dirname "$0")/calls"
echo "$*" | sed 's/.*@sha256:\\([0-9a-f]*\\) .*/\\1/'
"""
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


def derive_image(version: str, line: str, target: str = "serve") -> None:
    """Build a version of an image from version `one` of the serve image and another line of its Dockerfile."""
    content = f"FROM housing-serve:one\n{line}\n".encode()
    subprocess.run(["docker", "build", "--quiet", "--tag", f"housing-{target}:{version}", "-"], input=content, check=True)


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
        deploy = run(rolling, "./scripts/deploy", "two", **BUILT_HERE)
    print(f"rolled out: {results.requests} requests, {len(results.failed)} failed")
    assert deploy.returncode == 0, deploy.stdout + deploy.stderr
    assert versions() == {"housing-serve:two"}
    assert results.requests > 100 and not results.failed
    assert "VERSION=two" in (rolling / ".env").read_text(encoding="utf-8")


def test_a_bad_version_is_rolled_back_without_a_failed_request(rolling: Path) -> None:
    before = versions()
    with callers(address(f"{NAME}-proxy-1"), FLAT, keep_alive=False) as results:
        started = time.monotonic()
        deploy = run(rolling, "./scripts/deploy", "bad", **BUILT_HERE)
        duration = time.monotonic() - started
    print(f"rolled back after {duration:.1f} s: {results.requests} requests, {len(results.failed)} failed")
    assert deploy.returncode == 1
    assert "api of version bad does not predict; rolling back to" in deploy.stderr
    assert versions() == before
    assert results.requests > 100 and not results.failed
    assert "bad" not in (rolling / ".env").read_text(encoding="utf-8")


def test_a_version_with_a_missing_image_is_not_deployed(rolling: Path) -> None:
    before = versions()
    deploy = run(rolling, "./scripts/deploy", "one", **BUILT_HERE)
    assert deploy.returncode == 1
    assert "image housing-pull:one does not exist" in deploy.stderr
    assert versions() == before


def test_no_instance_is_replaced_while_another_one_fails(rolling: Path) -> None:
    before = versions()
    run(rolling, "docker", "compose", "stop", "--timeout", "2", "api-2")
    deploy = run(rolling, "./scripts/deploy", "two", **BUILT_HERE)
    run(rolling, "docker", "compose", "start", "api-2")
    assert deploy.returncode == 1
    assert "api-2 does not predict at present" in deploy.stderr
    assert versions() == before


def test_an_instance_that_cannot_roll_back_does_not_stop_the_rollback_of_the_other(rolling: Path) -> None:
    """The second instance can start with neither version, so the proxy uses the first, which has its previous version."""
    before = versions()
    deploy = run(rolling, "./scripts/deploy", "three", PORT_OF_2="no-port", **BUILT_HERE)
    assert deploy.returncode == 1
    assert "api-2 of version" in deploy.stderr and "does not predict either" in deploy.stderr
    assert versions() == before
    with callers(address(f"{NAME}-proxy-1"), FLAT, keep_alive=False) as results:
        wait_for(lambda: results.requests > 100, "the first instance serves requests")
    assert not results.failed
    mended = run(rolling, "docker", "compose", "up", "--detach", "--wait", "--no-deps", "--force-recreate", "api-2")
    assert mended.returncode == 0, mended.stderr


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry without images."""
    if not registry_support.is_installed():
        pytest.skip(registry_support.HINT)
    with registry_support.registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def pulled(rolling: Path, registry: Registry) -> dict[str, str]:
    """Images of a commit that were pushed to a registry, removed and pulled again: by target, their name with the digest."""
    owner, pushed = {"DOCKERHUB_USERNAME": f"{registry.address}/owner", "VERSION": COMMIT}, {}
    for target in ("serve", "pull", "train"):
        derive_image(COMMIT, f"ENV RELEASE={target}", target)
        outputs = rolling / f"{target}.outputs"
        push = run(rolling, "./scripts/push", target, **owner, GITHUB_OUTPUT=str(outputs))
        assert push.returncode == 0, push.stderr
        pushed[target] = push.stdout.splitlines()[-1]
        assert f"{target}={pushed[target].partition('@')[2]}\n" == outputs.read_text(encoding="utf-8")
        name = f"{registry.address}/owner/housing-{target}"
        docker("image", "rm", "--force", docker("image", "inspect", "--format", "{{.Id}}", f"{name}:latest"))
    pull = run(rolling, "./scripts/pull", **owner)
    assert pull.returncode == 0, pull.stderr
    assert pull.stdout.split() == list(pushed.values())
    return pushed


def test_a_pushed_image_has_the_digest_of_the_registry_and_comes_back_by_it(pulled: dict[str, str], registry: Registry) -> None:
    for target, image in pulled.items():
        assert image == f"{registry.address}/owner/housing-{target}@{registry.digest(f'owner/housing-{target}', COMMIT)}"
        assert docker("run", "--rm", "--network=none", image, "printenv", "RELEASE") == target


def test_the_bill_of_materials_is_read_by_digest(rolling: Path, pulled: dict[str, str]) -> None:
    printed = run(rolling, "./scripts/sbom", pulled["serve"])
    assert printed.stdout.rstrip() == docker("run", "--rm", "--network=none", pulled["serve"], "cat", "/app/sbom.json").rstrip()
    bill = json.loads(printed.stdout)
    assert bill["bomFormat"] and bill["specVersion"] and bill["serialNumber"]  # what GitHub's action requires


@pytest.mark.usefixtures("pulled")
def test_an_image_that_is_not_verified_replaces_no_instance(rolling: Path) -> None:
    """An image of this machine has no digest. Of those with one, gh knows no attestation, or there is no gh at all."""
    before = versions()
    for version, reason in (("two", "is from no registry"), (COMMIT, "gh is not installed")):
        deploy = run(rolling, "./scripts/deploy", version, PATH=without_gh(), GH_REPO="owner/name")
        assert deploy.returncode == 1
        assert reason in deploy.stderr and "is not verified, so nothing is replaced" in deploy.stderr
        assert versions() == before


def test_images_of_a_registry_are_deployed_after_each_is_verified(rolling: Path, pulled: dict[str, str], tmp_path: Path) -> None:
    program = tmp_path / "gh"
    program.write_text(GH, encoding="utf-8")
    program.chmod(0o755)
    deploy = run(rolling, "./scripts/deploy", COMMIT, PATH=f"{tmp_path}:{without_gh()}", GH_REPO="owner/name")
    assert deploy.returncode == 0, deploy.stdout + deploy.stderr
    assert versions() == {f"housing-serve:{COMMIT}"}
    calls = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    assert {f"oci://{image}" for image in pulled.values()} == {call.split()[2] for call in calls}
    assert len(calls) == 6 and all(f"--source-digest {COMMIT} " in call for call in calls)


def without_gh() -> str:
    """Return the path of programs without folders that have gh."""
    return os.pathsep.join(folder for folder in os.environ["PATH"].split(os.pathsep) if not Path(folder, "gh").exists())
