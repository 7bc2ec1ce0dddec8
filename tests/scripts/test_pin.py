"""scripts/pin with a real registry on loopback. It needs Docker's client with buildx, and no engine."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from housing.core.environment import PROJECT
from tests.support import registry as registry_support
from tests.support.commands import CommandResult
from tests.support.registry import Registry

FILES = ("Dockerfile", "compose.yml", "compose/rolling.yml")
IMAGE = re.compile(r"^(ARG BASE=| *image: )([^$ \n]+)$", re.MULTILINE)
pytestmark = pytest.mark.skipif(
    not registry_support.is_installed()
    or shutil.which("docker") is None
    or subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False).returncode != 0,
    reason=f"{registry_support.HINT}, or docker buildx",
)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry without images."""
    with registry_support.registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def directory(tmp_path: Path, registry: Registry) -> Path:
    """The project's files that name images, all of which are in the registry."""
    (tmp_path / "compose").mkdir()
    (tmp_path / "scripts").mkdir()
    shutil.copy(PROJECT / "scripts" / "pin", tmp_path / "scripts")
    for name in FILES:
        text = (PROJECT / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(IMAGE.sub(rf"\g<1>{registry.address}/\g<2>", text), encoding="utf-8")
    for image in images(tmp_path):
        registry.push_empty(*repository_and_tag(image, registry), author=image)
    return tmp_path


def images(directory: Path) -> list[str]:
    """Return the images that the files name."""
    return [image for name in FILES for _, image in IMAGE.findall((directory / name).read_text(encoding="utf-8"))]


def repository_and_tag(image: str, registry: Registry) -> tuple[str, str]:
    """Split an image of the registry into its repository and its tag."""
    repository, _, tag = image.partition("@")[0].removeprefix(f"{registry.address}/").rpartition(":")
    return repository, tag


def pin(directory: Path) -> CommandResult:
    """Run scripts/pin."""
    process = subprocess.run([str(directory / "scripts" / "pin")], capture_output=True, text=True, check=False)
    return CommandResult(process.returncode, process.stdout, process.stderr)


def test_each_image_gets_the_digest_of_the_registry_and_nothing_else_changes(directory: Path, registry: Registry) -> None:
    before = {name: (directory / name).read_text(encoding="utf-8") for name in FILES}
    named = images(directory)
    assert len(named) == 8
    result = pin(directory)
    assert result.code == 0, result.err
    expected = [f"{image}@{registry.digest(*repository_and_tag(image, registry))}" for image in named]
    assert images(directory) == expected
    assert sorted(result.out.splitlines()) == sorted(expected)
    for name, text in before.items():
        assert re.sub(r"@sha256:[0-9a-f]{64}", "", (directory / name).read_text(encoding="utf-8")) == text


def test_the_digest_of_a_moved_tag_is_replaced(directory: Path, registry: Registry) -> None:
    assert pin(directory).code == 0
    before = images(directory)
    moved = next(image for image in before if "/prometheus:" in image)
    digest = registry.push_empty(*repository_and_tag(moved, registry), author="somebody else")
    assert pin(directory).code == 0
    assert images(directory) == [f"{image.partition('@')[0]}@{digest}" if image == moved else image for image in before]


def test_nothing_changes_if_an_image_is_not_in_the_registry(directory: Path, registry: Registry) -> None:
    path = directory / "compose.yml"
    path.write_text(path.read_text(encoding="utf-8").replace("/postgres:", "/lost:"), encoding="utf-8")
    before = images(directory)
    result = pin(directory)
    assert result.code == 1
    assert f"error: could not read the digest of {registry.address}/lost:" in result.err and "Nothing changed" in result.err
    assert images(directory) == before
