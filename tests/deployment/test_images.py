"""The images, built and run as hardened as they are meant to be."""

import json
import mmap
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from housing.core.environment import PROJECT
from tests.support import docker_engine as engine
from tests.support.docker_engine import build, clone, docker, inspect, within
from tests.support.server import Server, free_port
from tests.support.tables import FLAT
from tests.support.waiting import SECONDS, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.skipif(bool(engine.missing()), reason=engine.missing() or "all is there")]

SERVE = f"housing-serve:{engine.VERSION}"
MOST = 350_000_000  # bytes of serve
HARDENED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp")
WRITABLE = ("--tmpfs=/log:uid=10001", "--tmpfs=/metrics:uid=10001")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three images, and the clone that they were built from."""
    place = clone(tmp_path_factory.mktemp("images") / "clone")
    build(place)
    return place


def certificate(place: Path) -> Path:
    """Make a certificate of nobody."""
    found = place / "mark.pem"
    made = ("-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=mark", "-keyout", str(place / "key.pem"), "-out", str(found))
    subprocess.run(["openssl", "req", *made], capture_output=True, check=True)
    return found


@contextmanager
def running(image: str, place: Path, *options: str) -> Iterator[tuple[str, Server]]:
    """A hardened container on this machine's network for as long as the block lasts, and how to ask it."""
    port, name = free_port(), f"housing-tests-{uuid.uuid4().hex[:8]}"
    settings = ("--env=HOUSING_HOST=127.0.0.1", f"--env=HOUSING_PORT={port}", "--env=HOUSING_MODEL=housing-rentals")
    arguments = ["docker", "run", f"--name={name}", "--network=host", *HARDENED, *WRITABLE, *settings, *options, image]
    log = place / f"{name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(arguments, stdout=file, stderr=file)
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        wait_for(lambda: server.answers("/readyz"), "the container is ready")
        yield name, server
    finally:
        docker("rm", "--force", name)
        process.wait(SECONDS)


@pytest.fixture(scope="module")
def published(rentals_server: Server) -> Path:
    """What the puller of a running server has published."""
    return rentals_server.log.parent / "serving" / "rentals-staging"


@pytest.fixture(scope="module")
def container(images: Path, published: Path) -> Iterator[tuple[str, Server]]:
    """A hardened container that serves what another server serves too."""
    with running(SERVE, images.parent, f"--volume={published}:/serving:ro") as found:
        yield found


def test_a_hardened_container_predicts_what_the_server_beside_it_does(
    container: tuple[str, Server], rentals_server: Server
) -> None:
    assert container[1].predict(FLAT).json["predictions"] == rentals_server.predict(FLAT).json["predictions"]


def test_its_health_check_passes(container: tuple[str, Server]) -> None:
    wait_for(lambda: inspect(container[0], ".State.Health.Status") == "healthy", "it is healthy")


def test_it_runs_as_nobody_who_may_write_or_who_has_a_tool(container: tuple[str, Server]) -> None:
    name = container[0]
    assert within(name, "id", "--user").stdout.strip() == "10001"
    assert within(name, "touch", "/app/here").returncode != 0
    owned = within(name, "find", "/app", "/venv", "/usr", "-writable", "-not", "-type", "l").stdout
    assert owned == ""
    for tool in ("gcc", "cc", "make", "uv", "git", "curl"):
        assert within(name, "sh", "-c", f"command -v {tool}").returncode != 0, tool
    for heavy in ("mlflow", "sklearn", "xgboost", "pandas", "hydra"):
        assert within(name, "python", "-c", f"import {heavy}").returncode == 1, heavy


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("name", ["serve", "pull", "train"])
def test_each_image_says_that_nothing_is_sent_home(name: str) -> None:
    told = json.loads(docker("image", "inspect", "--format", "{{json .Config.Env}}", f"housing-{name}:{engine.VERSION}"))
    assert {"MLFLOW_DISABLE_TELEMETRY=true", "ORT_DISABLE_TELEMETRY=1"} <= set(told)


def test_it_stops_in_order(images: Path, published: Path) -> None:
    with running(SERVE, images.parent, f"--volume={published}:/serving:ro") as (name, server):
        docker("stop", "--time=20", name)
        assert server.process.wait(SECONDS) == 0


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize(("program", "sign"), [("server.models.puller", "puller: "), ("server.feedback.joiner", "joiner.lock")])
def test_puller_and_joiner_stop_when_they_are_told_to(program: str, sign: str) -> None:
    """Without an init: the first process of a container ignores what it does not handle."""
    image = f"housing-pull:{engine.VERSION}"
    name = docker("run", "--detach", "--network=none", *HARDENED, *WRITABLE, image, "python", "-m", program)
    try:
        wait_for(lambda: sign in docker("logs", name, check=False) + within(name, "ls", "/log").stdout, "it works")
        docker("stop", "--time=15", name)
        assert inspect(name, ".State.ExitCode") == "0"
    finally:
        docker("rm", "--force", name)


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("name", ["serve", "pull", "train"])
def test_each_image_can_walk_trees(name: str) -> None:
    code = "import housing.bundle.tree_walker as walker; print(walker.__file__)"
    found = docker("run", "--rm", "--network=none", f"housing-{name}:{engine.VERSION}", "python", "-c", code)
    assert found.startswith("/app/housing/bundle/tree_walker.")


@pytest.mark.usefixtures("images")
def test_serve_is_no_larger_than_it_has_to_be() -> None:
    assert int(docker("image", "inspect", "--format", "{{.Size}}", SERVE)) <= MOST


def test_no_layer_has_the_certificates_of_the_build(images: Path, tmp_path: Path) -> None:
    """Of a build whose packages are installed anew, with a certificate among the secret's that is nowhere else."""
    marked, secret = certificate(tmp_path).read_bytes(), tmp_path / "ca.pem"
    secret.write_bytes(engine.CERTIFICATES.read_bytes() + marked)
    anew = ("--no-cache-filter=install,serve-packages", f"--secret=id=ca,src={secret}", "--network=host")
    docker("buildx", "build", "--target=serve", "--tag=housing-serve:mark", "--load", *anew, str(images))
    layers = tmp_path / "layers.tar"
    docker("save", "--output", str(layers), "housing-serve:mark")
    with layers.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        assert content.find(b"class Settings") > 0  # so a file's text is found as it is
        assert content.find(marked.splitlines()[5]) < 0


@pytest.mark.usefixtures("images")
def test_labels_tell_where_an_image_comes_from() -> None:
    labels = json.loads(docker("image", "inspect", "--format", "{{json .Config.Labels}}", SERVE))
    assert labels["org.opencontainers.image.licenses"] == "MIT"
    assert {"org.opencontainers.image.revision", "org.opencontainers.image.source"} <= set(labels)


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("name", ["serve", "pull", "train"])
def test_each_image_carries_what_it_is_made_of(name: str) -> None:
    image = f"housing-{name}:{engine.VERSION}"
    carried = json.loads(docker("run", "--rm", "--network=none", image, "cat", "/app/sbom.json"))
    told = {(part["name"].lower(), part["version"]) for part in carried["components"]}
    code = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
    installed = docker("run", "--rm", "--network=none", image, "/venv/bin/python", "-I", "-c", code).split()
    found = {(part.lower(), version) for part, _, version in (item.partition("==") for item in installed)}
    assert carried["bomFormat"] == "CycloneDX"
    assert {(part.replace("_", "-"), version) for part, version in found} <= {(p.replace("_", "-"), v) for p, v in told}


def test_a_bundle_that_is_baked_in_is_proven_and_needs_nothing_else(
    images: Path, published: Path, rentals_server: Server
) -> None:
    place = images / "serving" / "rentals-staging"
    shutil.copytree(published, place, symlinks=True)
    build(images, "serve", VERSION="baked", PUBLISHED="serving/rentals-staging")
    with running("housing-serve:baked", images.parent) as (_, server):
        assert server.predict(FLAT).json["predictions"] == rentals_server.predict(FLAT).json["predictions"]
    graph = next(place.glob("*/bundle/members/0/model.onnx"))
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(AssertionError, match="does not match its checksum"):
        build(images, "serve", VERSION="baked", PUBLISHED="serving/rentals-staging")


def test_the_dockerfiles_have_nothing_that_hadolint_knows_better() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    files = ["Dockerfile", "tests/stack/Dockerfile"]
    said = subprocess.run([str(hadolint), *files], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout
