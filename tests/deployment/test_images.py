"""The container images, built and run with the documented hardening options."""

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
from housing.server_files import releases
from tests.support import docker_engine as engine
from tests.support.docker_engine import build, clone, docker, inspect, within
from tests.support.server import Server, free_port
from tests.support.signing_keys import new_key
from tests.support.tables import FLAT
from tests.support.waiting import SECONDS, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.skipif(bool(engine.missing()), reason=engine.missing() or "nothing is missing")]

EXTRA = "extra-tests"  # the version of the images with extras
SERVE = f"housing-serve:{engine.VERSION}"
SIGN = """
from pathlib import Path
from housing.promotion.signing import Signer
print(Signer.read(Path("/keys/release.key")).sign({arguments}), end="")
"""
VERIFY = """
from pathlib import Path
from housing.server_files.signatures import TrustedKeys
signature = Path("/serving/current/signature.json").read_text()
bundle, model, version = {arguments}
TrustedKeys("/keys/{key}.pem").verify(bundle, [signature], model, version)
"""
MAX_SERVE_BYTES = 350_000_000
HARDENED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp")
WRITABLE = ("--tmpfs=/log:uid=10001", "--tmpfs=/metrics:uid=10001")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build all three images from a clone and return the clone."""
    directory = clone(tmp_path_factory.mktemp("images") / "clone")
    build(directory)
    return directory


def create_certificate(directory: Path) -> Path:
    """Create a self-signed certificate."""
    path = directory / "mark.pem"
    options = (
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=mark",
        "-keyout",
        str(directory / "key.pem"),
        "-out",
        str(path),
    )
    subprocess.run(["openssl", "req", *options], capture_output=True, check=True)
    return path


@contextmanager
def running(image: str, directory: Path, *options: str, route: str = "/readyz") -> Iterator[tuple[str, Server]]:
    """Run a hardened container on the network of the host. Yield its name and its server once a route answers."""
    port, name = free_port(), f"housing-tests-{uuid.uuid4().hex[:8]}"
    settings = ("--env=HOUSING_HOST=127.0.0.1", f"--env=HOUSING_PORT={port}", "--env=HOUSING_MODEL=housing-rentals")
    arguments = ["docker", "run", f"--name={name}", "--network=host", *HARDENED, *WRITABLE, *settings, *options, image]
    log = directory / f"{name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(arguments, stdout=file, stderr=file)
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        wait_for(lambda: server.answers(route), f"{route} of the container answers")
        yield name, server
    finally:
        docker("rm", "--force", name)
        process.wait(SECONDS)


@pytest.fixture(scope="module")
def release_dir(rentals_server: Server) -> Path:
    """The releases directory of a running server, readable for the user of a container: a server's files are its user's only."""
    directory = rentals_server.log.parent / "serving" / "rentals-staging"
    subprocess.run(["chmod", "--recursive", "a+rX", str(directory)], check=True)
    return directory


@pytest.fixture(scope="module")
def container(images: Path, release_dir: Path) -> Iterator[tuple[str, Server]]:
    """A hardened container that serves the releases of the rentals server."""
    with running(SERVE, images.parent, f"--volume={release_dir}:/serving:ro") as name_and_server:
        yield name_and_server


def test_a_hardened_container_predicts_the_same_as_the_server(container: tuple[str, Server], rentals_server: Server) -> None:
    assert container[1].predict(FLAT).json["predictions"] == rentals_server.predict(FLAT).json["predictions"]


def test_the_health_check_passes(container: tuple[str, Server]) -> None:
    wait_for(lambda: inspect(container[0], ".State.Health.Status") == "healthy", "the container is healthy")


def test_the_user_can_write_nothing_and_has_no_build_tools(container: tuple[str, Server]) -> None:
    name = container[0]
    assert within(name, "id", "--user").stdout.strip() == "10001"
    assert within(name, "touch", "/app/here").returncode != 0
    writable = within(name, "find", "/app", "/venv", "/usr", "-writable", "-not", "-type", "l").stdout
    assert writable == ""
    for tool in ("gcc", "cc", "make", "uv", "git", "curl"):
        assert within(name, "sh", "-c", f"command -v {tool}").returncode != 0, tool
    for library in ("mlflow", "sklearn", "xgboost", "pandas", "hydra"):
        assert within(name, "python", "-c", f"import {library}").returncode == 1, library


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("name", ["serve", "pull", "train"])
def test_each_image_disables_telemetry(name: str) -> None:
    environment = json.loads(docker("image", "inspect", "--format", "{{json .Config.Env}}", f"housing-{name}:{engine.VERSION}"))
    assert {"MLFLOW_DISABLE_TELEMETRY=true", "ORT_DISABLE_TELEMETRY=1"} <= set(environment)


def test_a_stopped_container_exits_with_code_0(images: Path, release_dir: Path) -> None:
    with running(SERVE, images.parent, f"--volume={release_dir}:/serving:ro") as (name, server):
        docker("stop", "--time=20", name)
        assert server.process.wait(SECONDS) == 0


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize(
    ("program", "start_sign"), [("housing.serving.puller", "puller: "), ("housing.feedback.joiner", "joiner.lock")]
)
def test_puller_and_joiner_exit_with_code_0_on_sigterm(program: str, start_sign: str) -> None:
    """The container has no init, and the first process of a container ignores signals without a handler."""
    image = f"housing-pull:{engine.VERSION}"
    name = docker("run", "--detach", "--network=none", *HARDENED, *WRITABLE, image, "python", "-m", program)
    try:
        wait_for(
            lambda: start_sign in docker("logs", name, check=False) + within(name, "ls", "/log").stdout, "the program has started"
        )
        docker("stop", "--time=15", name)
        assert inspect(name, ".State.ExitCode") == "0"
    finally:
        docker("rm", "--force", name)


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("name", ["serve", "pull", "train"])
@pytest.mark.parametrize("module", ["bundle/tree_walker", "features/spatial_kernels"])
def test_each_image_has_the_extensions(name: str, module: str) -> None:
    code = f"import housing.{module.replace('/', '.')} as extension; print(extension.__file__)"
    path = docker("run", "--rm", "--network=none", f"housing-{name}:{engine.VERSION}", "python", "-c", code)
    assert path.startswith(f"/app/housing/{module}.")


@pytest.mark.usefixtures("images")
def test_the_serve_image_is_below_its_size_limit() -> None:
    assert int(docker("image", "inspect", "--format", "{{.Size}}", SERVE)) <= MAX_SERVE_BYTES


def test_no_layer_contains_the_certificates_of_the_build(images: Path, tmp_path: Path) -> None:
    """The build reinstalls all packages with a secret that contains a unique certificate."""
    unique, secret = create_certificate(tmp_path).read_bytes(), tmp_path / "ca.pem"
    secret.write_bytes(engine.CERTIFICATES.read_bytes() + unique)
    options = ("--no-cache-filter=install,serve-packages", f"--secret=id=ca,src={secret}", "--network=host")
    docker("buildx", "build", "--target=serve", "--tag=housing-serve:mark", "--load", *options, str(images))
    layers = tmp_path / "layers.tar"
    docker("save", "--output", str(layers), "housing-serve:mark")
    with layers.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        assert content.find(b"class Settings") > 0  # the text of files is not compressed
        assert content.find(unique.splitlines()[5]) < 0


@pytest.mark.usefixtures("images")
def test_labels_name_the_source_and_the_revision() -> None:
    labels = json.loads(docker("image", "inspect", "--format", "{{json .Config.Labels}}", SERVE))
    assert labels["org.opencontainers.image.licenses"] == "MIT"
    assert {"org.opencontainers.image.revision", "org.opencontainers.image.source"} <= set(labels)


@pytest.fixture(scope="module")
def images_with_extras(images: Path) -> None:
    """The images that check signatures, and the one that makes them, as docs/how-to/sign-models.md builds them."""
    build(images, "serve", "pull", VERSION=EXTRA, EXTRAS="verify")
    build(images, "train", VERSION=EXTRA, EXTRAS="sign")


def run_python(image: str, code: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run Python code in a hardened container without a network."""
    command = ["docker", "run", "--rm", "--network=none", *HARDENED, *options, image, "python", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.usefixtures("images_with_extras")
def test_images_with_extras_sign_a_model_and_serve_only_what_a_trusted_key_signed(
    images: Path, release_dir: Path, rentals_server: Server, tmp_path: Path
) -> None:
    serving = shutil.copytree(release_dir, tmp_path / "serving", symlinks=True)
    for name in ("release", "other"):
        new_key(tmp_path, name)
    subprocess.run(["chmod", "--recursive", "a+rX", str(tmp_path)], check=True)
    current = (serving / releases.CURRENT).resolve()
    release = json.loads((current / releases.RELEASE_FILE).read_text(encoding="utf-8"))
    arguments = f"Path('/serving/{releases.CURRENT}/{releases.BUNDLE}'), '{release['model']}', '{release['version']}'"
    mounts = (f"--volume={tmp_path}:/keys:ro", f"--volume={serving}:/serving:ro")
    signed = run_python(f"housing-train:{EXTRA}", SIGN.format(arguments=arguments), *mounts)
    assert signed.returncode == 0, signed.stderr
    (current / releases.SIGNATURE_FILE).write_text(signed.stdout, encoding="utf-8")

    def verify(image: str, key: str) -> str:
        return run_python(image, VERIFY.format(key=key, arguments=arguments), *mounts).stderr

    assert verify(f"housing-pull:{EXTRA}", "release") == ""
    assert "it is signed with key" in verify(f"housing-pull:{EXTRA}", "other")
    assert "pip install 'housing[verify]'" in verify(SERVE, "release")
    options = (f"housing-serve:{EXTRA}", images.parent, *mounts)
    with running(*options, "--env=HOUSING_TRUSTED_KEYS=/keys/release.pem") as (_, server):
        assert server.predict(FLAT).json["predictions"] == rentals_server.predict(FLAT).json["predictions"]
    with running(*options, "--env=HOUSING_TRUSTED_KEYS=/keys/other.pem", route="/healthz") as (_, server):
        assert server.ask("/readyz").status == 503
        assert "it is signed with key" in server.log.read_text(encoding="utf-8")


@pytest.mark.usefixtures("images", "images_with_extras")
@pytest.mark.parametrize("version", [engine.VERSION, EXTRA])
@pytest.mark.parametrize("name", ["serve", "pull", "train"])
def test_the_sbom_of_each_image_lists_every_installed_package(name: str, version: str) -> None:
    image = f"housing-{name}:{version}"
    sbom = json.loads(docker("run", "--rm", "--network=none", image, "cat", "/app/sbom.json"))
    code = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
    installed = docker("run", "--rm", "--network=none", image, "/venv/bin/python", "-I", "-c", code).split()
    distributions = {normalized(*item.split("==")) for item in installed}
    assert sbom["bomFormat"] == "CycloneDX" and sbom["serialNumber"].startswith("urn:uuid:")
    assert ("cryptography" in {part["name"] for part in sbom["components"]}) == (version == EXTRA or name != "serve")
    assert distributions <= {normalized(part["name"], part["version"]) for part in sbom["components"]}


def normalized(name: str, version: str) -> tuple[str, str]:
    """Return the name of a package in one spelling, with its version."""
    return name.lower().replace("_", "-"), version


def test_a_bundle_inside_an_image_is_verified_and_served_without_a_volume(
    images: Path, release_dir: Path, rentals_server: Server
) -> None:
    directory = images / "serving" / "rentals-staging"
    shutil.copytree(release_dir, directory, symlinks=True)
    build(images, "serve", VERSION="baked", PUBLISHED="serving/rentals-staging")
    with running("housing-serve:baked", images.parent) as (_, server):
        assert server.predict(FLAT).json["predictions"] == rentals_server.predict(FLAT).json["predictions"]
    graph = next(directory.glob("*/bundle/members/0/model.onnx"))
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(AssertionError, match="does not match its checksum"):
        build(images, "serve", VERSION="baked", PUBLISHED="serving/rentals-staging")


def test_hadolint_has_no_complaint_about_the_dockerfiles() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    files = ["Dockerfile", "tests/stack/Dockerfile"]
    process = subprocess.run([str(hadolint), *files], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout
