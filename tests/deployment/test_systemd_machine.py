"""The units of deploy/systemd on a machine with systemd: a container whose first process is systemd."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from housing.core.environment import PROJECT
from tests.support import docker_engine as engine
from tests.support.docker_engine import CallerResults, address, build, callers, clone, docker
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.skipif(bool(engine.missing()), reason=engine.missing() or "nothing is missing")]

IMAGE, NAME, FOLDER = f"housing-systemd:{engine.VERSION}", "housing-systemd-tests", "/srv/housing"
QUICK = ("model=linear", "features=none", "refit=false", "interval=none", "figures=false")
SERVICES = ("api", "puller", "joiner", "retrain")
MAX_EXPOSURE = 2.0  # of systemd-analyze security, from 0 to 10


@dataclass(frozen=True)
class Machine:
    """The machine with systemd, with the project of the user `owner`."""

    row: object

    def run(self, *command: str, user: str = "root", check: bool = True) -> str:
        """Run a command in the project's folder, without the variables of the image. Return its output."""
        variables = ["env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin:/sbin", f"HOME=/home/{user}", f"USER={user}"]
        if user != "root":
            variables += ["XDG_RUNTIME_DIR=/run/user/1000", "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus"]
        process = subprocess.run(
            ["docker", "exec", "--user", user, "--workdir", FOLDER, NAME, *variables, *command],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert not check or process.returncode == 0, f"{command}: {process.stdout[-3000:]}{process.stderr[-3000:]}"
        return process.stdout + process.stderr

    def answers(self) -> bool:
        """Return whether the server predicts the row."""
        with callers(address(NAME), self.row, keep_alive=False, count=1) as results:
            wait_for(lambda: results.requests > 1, "a request is answered")
        return not results.failed


@pytest.fixture(name="machine", scope="module")
def fixture_machine(tmp_path_factory: pytest.TempPathFactory, real_home: Path) -> Iterator[Machine]:
    """A machine on which `owner` has trained a model."""
    directory = clone(tmp_path_factory.mktemp("machine") / "clone")
    build(directory, "train")
    _build_machine(directory)
    docker("network", "create", "--internal", NAME)
    try:
        docker(
            *("run", "--detach", "--name", NAME, "--network", NAME, "--cap-add", "SYS_ADMIN", "--cgroupns", "private"),
            *("--security-opt", "seccomp=unconfined", "--tmpfs", "/run", "--tmpfs", "/tmp", IMAGE),
        )
        docker("cp", str(real_home / "data" / "california.csv"), f"{NAME}:{FOLDER}/data/california.csv")
        machine = Machine(json.loads((PROJECT / "docs" / "row.json").read_text(encoding="utf-8")))
        machine.run("chown", "owner:owner", "data/california.csv")
        machine.run(".venv/bin/python", "-m", "housing.train", *QUICK, user="owner")
        machine.run(".venv/bin/python", "-m", "housing.promote", user="owner")
        yield machine
    finally:
        docker("rm", "--force", "--volumes", NAME, check=False)
        docker("network", "rm", NAME, check=False)


def _build_machine(directory: Path) -> None:
    command = [
        "docker",
        "buildx",
        "build",
        "--file",
        "tests/stack/systemd.Dockerfile",
        "--tag",
        IMAGE,
        "--load",
        "--network",
        "host",
    ]
    process = subprocess.run(
        [*command, "--build-arg", f"TRAIN=housing-train:{engine.VERSION}", "."],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-5000:]


@pytest.fixture(name="served", scope="module")
def fixture_served(machine: Machine) -> Machine:
    """The machine with the units installed and started; the address is set in the file of settings."""
    machine.run("./scripts/install")
    machine.run("sed", "-i", "s/^HOUSING_HOST=.*/HOUSING_HOST=0.0.0.0/", "/etc/housing/environment")
    machine.run("./scripts/install")
    machine.run("systemctl", "start", "housing.target")
    wait_for(machine.answers, "the server predicts")
    return machine


def test_units_are_valid_and_hardened(served: Machine) -> None:
    """Systemd finds no mistake in them, and each service is exposed less than 2."""
    units = served.run("sh", "-c", "ls -d /etc/systemd/system/housing*.service /etc/systemd/system/housing*.timer").split()
    assert "/srv/housing" not in served.run("systemd-analyze", "verify", *units, check=False)
    for service in SERVICES:
        report = served.run("systemd-analyze", "security", "--no-pager", f"housing-{service}.service")
        found = re.search(r"exposure level for \S+: ([\d.]+)", report)
        assert found and float(found[1]) < MAX_EXPOSURE, report[-300:]


def test_processes_run_as_the_owner_of_the_project(served: Machine) -> None:
    """No process of the server has the rights of root, and others cannot read its log."""
    for service in ("api", "puller", "joiner"):
        process = served.run("systemctl", "show", "--property=MainPID", "--value", f"housing-{service}.service").strip()
        assert served.run("stat", "--format=%U", f"/proc/{process}").strip() == "owner"
    assert served.run("stat", "--format=%U %a", "/var/lib/housing/log").split() == ["owner", "700"]


def test_no_request_fails_during_restarts_and_reloads(served: Machine) -> None:
    """Systemd holds the address, so that a request of the time between two servers waits."""
    with (
        callers(address(NAME), served.row, keep_alive=True, count=2) as kept,
        callers(address(NAME), served.row, keep_alive=False, count=2) as new,
    ):
        for action in ("restart", "reload", "restart"):
            served.run("systemctl", action, "housing-api.service")
            _await_requests(20, kept, new)
    assert not kept.failed and not new.failed


def _await_requests(number: int, *results: CallerResults) -> None:
    """Wait until callers have sent some more requests each."""
    before = [result.requests for result in results]
    wait_for(
        lambda: all(now.requests > then + number for now, then in zip(results, before, strict=True)), "more requests are answered"
    )


def test_a_killed_server_is_started_again(served: Machine) -> None:
    """A master that is killed is replaced by systemd."""
    before = served.run("systemctl", "show", "--property=MainPID", "--value", "housing-api.service")
    served.run("systemctl", "kill", "--signal=KILL", "housing-api.service")
    wait_for(
        lambda: served.run("systemctl", "show", "--property=MainPID", "--value", "housing-api.service") not in (before, "0\n"),
        "a new master",
    )
    wait_for(served.answers, "the server predicts again")


def test_the_timer_retrains(served: Machine) -> None:
    """The timer starts the unit; here at once, and the retraining finds too few new rows."""
    folder, command = "/run/systemd/system/housing-retrain", f"{FOLDER}/.venv/bin/python -m housing.retrain min_new_rows=1000000"
    quick = f"[Service]\\nExecStart=\\nExecStart={command}\\n"
    soon = "[Timer]\\nOnActiveSec=0\\nRandomizedDelaySec=0\\n"
    served.run("sh", "-c", f"mkdir -p {folder}.service.d {folder}.timer.d; printf '{quick}' >{folder}.service.d/quick.conf")
    served.run("sh", "-c", f"printf '{soon}' >{folder}.timer.d/soon.conf; systemctl daemon-reload")
    served.run("systemctl", "start", "housing-retrain.timer")
    journal = ("journalctl", "--unit=housing-retrain", "--no-pager")
    wait_for(lambda: "Finished" in served.run(*journal), "the retraining ends", 600)
    assert "NO NEW LABELS" in served.run(*journal)


def test_a_user_installs_it_without_root(served: Machine) -> None:
    """The same units serve for a user, whose manager goes on without a login."""
    served.run("systemctl", "stop", "housing.target", "housing-api.socket")
    served.run("systemctl", "start", "user@1000.service")
    served.run("./scripts/install", "--user", user="owner")
    settings = "/home/owner/.config/housing/environment"
    served.run("sed", "-i", "s/^HOUSING_HOST=.*/HOUSING_HOST=0.0.0.0/", settings)
    served.run("./scripts/install", "--user", user="owner")
    served.run("systemctl", "--user", "start", "housing.target", user="owner")
    wait_for(served.answers, "the user's server predicts")
    with callers(address(NAME), served.row, keep_alive=False) as results:
        served.run("systemctl", "--user", "restart", "housing-api.service", user="owner")
        _await_requests(20, results)
    assert not results.failed


@pytest.mark.parametrize(
    ("user", "arguments", "message"),
    [("owner", [], "sudo ./scripts/install"), ("root", ["--other"], "scripts/install --user")],
)
def test_what_cannot_be_installed_is_refused(machine: Machine, user: str, arguments: list[str], message: str) -> None:
    """The message names the command that works."""
    assert message in machine.run("./scripts/install", *arguments, user=user, check=False)
