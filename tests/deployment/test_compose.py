"""The stack's file: what docs/how-to/secure.md promises of containers, ports, volumes and networks."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from housing.core.environment import PROJECT

COMPOSE = yaml.safe_load((PROJECT / "compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
WITH_RIGHTS = {"postgres", "s3"}  # images that switch to a user of their own


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_limited_and_gains_no_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["security_opt"] == ["no-new-privileges:true"] and not service.get("privileged")
    assert service["pids_limit"] and service["mem_limit"]
    assert "docker.sock" not in str(service)


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - WITH_RIGHTS))
def test_a_container_has_no_capability_and_a_read_only_root(name: str) -> None:
    assert SERVICES[name]["cap_drop"] == ["ALL"] and "cap_add" not in SERVICES[name]
    assert SERVICES[name]["read_only"] is True


def test_postgresql_has_only_five_capabilities() -> None:
    assert SERVICES["postgres"]["cap_drop"] == ["ALL"] and len(SERVICES["postgres"]["cap_add"]) == 5


def test_every_port_is_on_loopback_by_default() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports and all(re.fullmatch(r"\$\{\w+:-127\.0\.0\.1:\d+\}:\d+", port) for port in ports), ports
    assert yaml.safe_load((PROJECT / "conf" / "serve.yaml").read_text(encoding="utf-8"))["serve"]["host"] == "127.0.0.1"


def test_only_api_and_joiner_see_the_prediction_log_and_networks_inside_have_no_way_out() -> None:
    logs = {
        name: [volume for volume in service.get("volumes", ()) if str(volume).startswith("log:")]
        for name, service in SERVICES.items()
    }
    assert {name for name, volumes in logs.items() if volumes and "profiles" not in SERVICES[name]} == {"api", "joiner"}
    assert logs["canary"] == ["log:/log:ro"] and SERVICES["canary"]["networks"] == ["inside"]
    assert [name for name, network in COMPOSE["networks"].items() if network.get("internal")] == ["data", "inside"]


def test_no_program_reports_to_its_maker() -> None:
    grafana = SERVICES["grafana"]["environment"]
    assert {value for name, value in grafana.items() if name.startswith("GF_ANALYTICS")} == {"false"}
    assert "analytics = false" in (PROJECT / ".dvc" / "config").read_text(encoding="utf-8")
    code = "import housing.core.environment, os; print(os.environ['MLFLOW_DISABLE_TELEMETRY'])"
    environ = {name: value for name, value in os.environ.items() if name != "MLFLOW_DISABLE_TELEMETRY"}
    process = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, env=environ, capture_output=True, text=True, check=True)
    assert process.stdout == "true\n"


def test_generated_passwords_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    (tmp_path / ".env.example").write_bytes((PROJECT / ".env.example").read_bytes())
    function = re.search(
        r"^has_passwords\(\) \{\n.*?^\}", (PROJECT / "scripts" / "stack").read_text(encoding="utf-8"), re.M | re.S
    )
    assert function is not None
    subprocess.run(["bash", "-euc", f"umask 000\n{function[0]}\nhas_passwords"], cwd=tmp_path, check=True, capture_output=True)
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert "change-me" not in (tmp_path / ".env").read_text(encoding="utf-8")


def test_the_images_run_as_a_user_without_rights() -> None:
    assert users_of_the_images() == {"10001:10001"}


def test_node_exporter_is_the_user_that_can_read_the_volume_of_training() -> None:
    assert {SERVICES["node-exporter"]["user"]} == users_of_the_images()
    assert SERVICES["node-exporter"]["volumes"] == ["work:/work:ro"]


def users_of_the_images() -> set[str]:
    """Return the users of the project's images, to whom the folders of the volumes belong."""
    lines = (PROJECT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    return {line.removeprefix("USER ") for line in lines if line.startswith("USER ")}
