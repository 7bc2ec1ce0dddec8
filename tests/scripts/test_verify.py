"""scripts/verify: an image is accepted only if GitHub's image workflow attested its origin and its bill of materials.

The real gh refuses here, since it reaches neither GitHub nor Sigstore. What it answers there comes from a program that stands
for it.
"""

import subprocess
from pathlib import Path

import pytest

from housing.core.environment import PROJECT
from tests.deployment.test_workflows import WORKFLOW_DIR, require_program
from tests.support.commands import CommandResult

DIGEST = "5e" * 32
IMAGE = f"owner/housing-serve@sha256:{DIGEST}"
COMMIT = "c0" * 20
ORIGIN, MATERIALS = "https://slsa.dev/provenance/v1", "https://cyclonedx.org/bom"
SYSTEM = "/usr/bin:/bin"
NOWHERE = "/nonexistent"
UNREACHABLE = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9")  # no program listens there


def verify(*arguments: str, path: str = SYSTEM, **environment: str) -> CommandResult:
    """Run scripts/verify with the programs of a path, and without the settings of this machine's gh."""
    environ = {"PATH": path, "HOME": NOWHERE, "GH_REPO": "owner/name", **environment}
    command = [str(PROJECT / "scripts" / "verify"), *arguments]
    process = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    return CommandResult(process.returncode, process.stdout, process.stderr)


def stand_in(folder: Path, attested: dict[str, str], code: int = 0) -> str:
    """Write a program that stands for gh, and return the path of programs that has it.

    It appends its arguments to the file `calls`, and prints the digests that are attested with a predicate.
    """
    cases = "\n".join(f'*"{predicate}"*) echo {digests};;' for predicate, digests in attested.items())
    program = folder / "gh"
    program.write_text(f'#!/bin/sh\necho "$@" >>{folder}/calls\ncase "$*" in\n{cases}\nesac\nexit {code}\n', encoding="utf-8")
    program.chmod(0o755)
    return f"{folder}:{SYSTEM}"


def real_gh() -> str:
    """Return the path of programs that has the real gh."""
    return f"{require_program('gh').parent}:{SYSTEM}"


@pytest.mark.parametrize(
    "image", ["", "owner/housing-serve:1.2", f"owner/housing-serve@sha256:{DIGEST[1:]}", f"a b@sha256:{DIGEST}"]
)
def test_an_image_without_a_digest_is_not_verified(image: str) -> None:
    result = verify(image)
    assert (result.code, result.out) == (2, "")
    assert "./scripts/verify OWNER/housing-serve@sha256:DIGEST" in result.err


def test_a_commit_has_40_digits() -> None:
    assert "40 hexadecimal digits (got 'main')" in verify(IMAGE, "main").err


def test_without_gh_an_image_is_not_verified() -> None:
    result = verify(IMAGE)
    assert result.code == 1
    assert (
        result.err
        == f"error: gh is not installed, so {IMAGE} cannot be verified. Install the GitHub CLI: https://cli.github.com\n"
    )


def test_without_a_repository_on_github_an_image_is_not_verified(tmp_path: Path) -> None:
    result = verify(IMAGE, GH_REPO="", GIT_DIR=str(tmp_path))
    assert result.code == 1 and "Set GH_REPO to the repository that builds the images" in result.err


@pytest.mark.parametrize(
    ("url", "repository"),
    [
        ("https://github.com/someone/houses", "someone/houses"),
        ("git@github.com:someone/houses.git", "someone/houses"),
        ("ssh://git@github.com/someone/houses.git", "someone/houses"),
        ("https://github.example.org/someone/houses", ""),
        ("https://notgithub.com/someone/houses", ""),
    ],
)
def test_the_repository_is_that_of_the_remote_origin(tmp_path: Path, url: str, repository: str) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", url], check=True)
    path = stand_in(tmp_path, {ORIGIN: DIGEST, MATERIALS: DIGEST})
    result = verify(IMAGE, path=path, GH_REPO="", GIT_DIR=str(tmp_path / ".git"))
    assert (result.code == 0) == bool(repository)
    assert f"was built by {repository} " in result.out if repository else "no repository on GitHub" in result.err


def test_the_real_gh_refuses_without_a_login() -> None:
    result = verify(IMAGE, path=real_gh())
    assert result.code == 1
    assert result.err == f"error: gh is not logged in, so {IMAGE} cannot be verified. Run gh auth login, or set GH_TOKEN\n"


def test_the_real_gh_refuses_if_it_cannot_check_signatures(tmp_path: Path) -> None:
    result = verify(IMAGE, path=real_gh(), HOME=str(tmp_path), GH_TOKEN="invalid", **UNREACHABLE)
    assert result.code == 1
    assert f"{IMAGE} has no valid attestation of its origin by owner/name" in result.err and "Sigstore" in result.err


def test_the_real_gh_knows_every_option_that_is_used(tmp_path: Path) -> None:
    path = stand_in(tmp_path, {ORIGIN: DIGEST, MATERIALS: DIGEST})
    assert verify(IMAGE, COMMIT, path=path).code == 0
    for call in (tmp_path / "calls").read_text(encoding="utf-8").splitlines():
        process = subprocess.run([require_program("gh"), *call.split()], env={"HOME": NOWHERE}, capture_output=True, check=False)
        assert process.returncode == 4, process.stderr  # it asks for a login; an unknown option has code 1


def test_origin_and_bill_of_materials_must_be_attested_by_the_image_workflow_on_main(tmp_path: Path) -> None:
    result = verify(IMAGE, COMMIT, path=stand_in(tmp_path, {ORIGIN: DIGEST, MATERIALS: DIGEST}))
    assert (result.code, result.out) == (0, f"{IMAGE} was built by owner/name and has a bill of materials\n")
    calls = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    assert len(calls) == 2
    for call, predicate in zip(calls, (ORIGIN, MATERIALS), strict=True):
        assert call.startswith(f"attestation verify oci://{IMAGE} --repo owner/name --predicate-type {predicate} ")
        assert "--signer-workflow owner/name/.github/workflows/image.yml --source-ref refs/heads/main" in call
        assert f"--deny-self-hosted-runners --source-digest {COMMIT}" in call
    assert (WORKFLOW_DIR / "image.yml").is_file()


@pytest.mark.parametrize(
    ("attested", "code", "name"),
    [
        ({}, 1, "origin"),
        ({ORIGIN: DIGEST}, 0, "bill of materials"),
        ({MATERIALS: DIGEST}, 0, "origin"),  # gh before 2.67 exits with 0 if there is no attestation
        ({ORIGIN: "ab" * 32, MATERIALS: DIGEST}, 0, "origin"),
        ({ORIGIN: DIGEST, MATERIALS: DIGEST}, 1, "origin"),
    ],
)
def test_an_image_without_both_attestations_is_refused(tmp_path: Path, attested: dict[str, str], code: int, name: str) -> None:
    result = verify(IMAGE, path=stand_in(tmp_path, attested, code))
    assert (result.code, result.out) == (1, "")
    assert f"error: {IMAGE} has no valid attestation of its {name} by owner/name" in result.err
