"""The stack of compose.yml, really running. Stand-ins (.ci/images.sh) replace images that cannot be pulled."""

import json
import os
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from housing.core.environment import PROJECT
from tests.support import docker_engine as engine
from tests.support.docker_engine import address, build, callers, child_of, clone, docker, inspect, within
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.skipif(bool(engine.missing()), reason=engine.missing() or "nothing is missing")]

PROJECT_NAME = "housing-tests"
QUICK = ("features=none", "refit=false", "interval=none", "figures=false")


@dataclass(frozen=True)
class Stack:
    """The stack of a clone."""

    directory: Path

    def run(self, *arguments: str, check: bool = True) -> str:
        """Run scripts/stack and return its output."""
        process = subprocess.run(
            ["./scripts/stack", *arguments],
            cwd=self.directory,
            env=_environ(),
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert not check or process.returncode == 0, process.stdout[-2000:] + process.stderr[-4000:]
        return process.stdout + process.stderr

    def compose(self, *arguments: str) -> None:
        """Run docker compose, which must succeed."""
        process = subprocess.run(
            ["docker", "compose", *arguments],
            cwd=self.directory,
            env=_environ(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-4000:]

    def name(self, service: str) -> str:
        """Return the name of a service's container."""
        return f"{PROJECT_NAME}-{service}-1"

    def ask(self, route: str, service: str = "api", port: int = 8000, body: object = None, host: str = "") -> object:
        """Send a request to a service at the address of its container. Return the JSON response."""
        headers = {"Content-Type": "application/json", **({"Host": host} if host else {})}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{address(self.name(service))}:{port}{route}", data, headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def answers(self, route: str, service: str = "api", port: int = 8000) -> bool:
        """Return whether a service responds with valid JSON and status 200."""
        try:
            self.ask(route, service, port)
        except (OSError, ValueError):
            return False
        return True

    def is_healthy(self, service: str) -> bool:
        """Return whether the health check of a service passes."""
        return inspect(self.name(service), ".State.Health.Status") == "healthy"

    def finished_runs(self) -> set[str]:
        """Return the ids of the runs that are finished in MLflow."""
        query = {"experiment_ids": ["0", "1", "2"], "filter": "attributes.status = 'FINISHED'", "max_results": 100}
        response = self.ask("/api/2.0/mlflow/runs/search", "mlflow", 5000, query, "mlflow:5000")
        assert isinstance(response, dict)
        return {run["info"]["run_id"] for run in response["runs"]}


def _environ() -> dict[str, str]:
    files = {"COMPOSE_FILE": "compose.yml:tests/stack/compose.yml", "COMPOSE_PROJECT_NAME": PROJECT_NAME}
    return {**os.environ, **files, "VERSION": engine.VERSION}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, real_home: Path) -> Iterator[Stack]:
    """A running, healthy stack of a clone with the California table."""
    directory = clone(tmp_path_factory.mktemp("stack") / "clone")
    shutil.copy(real_home / "data" / "california.csv", directory / "data")
    build(directory)
    running = Stack(directory)
    try:
        running.run("up")
        yield running
    finally:
        running.run("down", "--volumes", "--timeout", "2", check=False)


@pytest.fixture(scope="module")
def trained(stack: Stack) -> Stack:
    """The stack with a model that was trained and promoted inside."""
    started_at = inspect(stack.name("api"), ".State.StartedAt")
    assert "staging is version 1" in stack.run("train", "-m", "model=linear,decision_tree", *QUICK)
    wait_for(lambda: stack.answers("/readyz"), "the API serves the model")
    assert inspect(stack.name("api"), ".State.StartedAt") == started_at  # no restart
    return stack


def example(stack: Stack) -> object:
    """Return the example row of the model."""
    response = stack.ask("/model")
    assert isinstance(response, dict)
    return response["example"]


def test_a_model_trained_inside_is_served_without_a_restart(trained: Stack) -> None:
    assert trained.ask("/readyz") == {"status": "ready", "version": "1"}


def test_prometheus_scrapes_the_api(trained: Stack) -> None:
    def is_up() -> bool:
        response = trained.ask("/api/v1/query?query=up%7Bjob%3D%22housing%22%7D", "prometheus", 9090)
        assert isinstance(response, dict)
        return [series["value"][1] for series in response["data"]["result"]] == ["1"]

    wait_for(is_up, "Prometheus has scraped the API")


def test_prometheus_scrapes_the_metrics_about_training(trained: Stack) -> None:
    """Training writes the file into its volume, from which node exporter serves it."""
    trained.compose("--profile", "training-metrics", "up", "--detach", "--wait", "node-exporter")

    def finished() -> list[str]:
        query = "housing_training_runs%7Bstatus%3D%22FINISHED%22%7D"
        response = trained.ask(f"/api/v1/query?query={query}", "prometheus", 9090)
        assert isinstance(response, dict)
        return [series["value"][1] for series in response["data"]["result"]]

    wait_for(lambda: finished() == ["2"], "Prometheus has scraped the metrics about both runs")


def test_only_mlflow_shares_a_network_with_the_database_and_s3(stack: Stack) -> None:
    """The packet filter of the engine makes addresses of other networks unreachable."""
    containers = docker("ps", "--format", "{{.Names}}", "--filter", f"network={PROJECT_NAME}_data").split()
    assert set(containers) == {stack.name(service) for service in ("postgres", "s3", "mlflow")}
    assert docker("network", "inspect", "--format", "{{.Internal}}", f"{PROJECT_NAME}_data") == "true"


def test_ports_of_s3_without_authentication_are_only_reachable_from_its_container(stack: Stack) -> None:
    for port in (8888, 9333, 8080):  # filer, master, volumes
        connect = f"import socket; socket.create_connection(('s3', {port}), 3)"
        assert "Connection refused" in within(stack.name("mlflow"), "python", "-c", connect).stderr


@pytest.mark.parametrize("service", ["mlflow", "s3", "postgres"])
def test_a_killed_service_restarts_without_a_failed_request_or_a_lost_run(trained: Stack, service: str) -> None:
    before = trained.finished_runs()
    with callers(address(trained.name("api")), example(trained), keep_alive=True) as results:
        started = inspect(trained.name(service), ".State.StartedAt")
        os.kill(child_of(trained.name(service)), signal.SIGKILL)
        wait_for(lambda: inspect(trained.name(service), ".State.StartedAt") != started, "the service is restarted")
        wait_for(lambda: trained.is_healthy(service) and trained.is_healthy("mlflow"), "the service is healthy again")
    print(f"{service} killed: {results.requests} requests, {len(results.failed)} failed")
    assert results.requests > 100
    assert not results.failed
    assert trained.finished_runs() == before


def test_a_backup_restores_model_runs_and_log_on_an_empty_machine(trained: Stack, tmp_path: Path) -> None:
    row, runs = example(trained), trained.finished_runs()
    before = trained.ask("/predict", body=row)
    assert isinstance(before, dict)
    with callers(address(trained.name("api")), row, keep_alive=True) as results:
        trained.run("backup", str(tmp_path / "backup"))
    assert results.requests and not results.failed
    assert "a registry exists already" in trained.run("restore", str(tmp_path / "backup"), check=False)
    trained.run("down", "--volumes", "--timeout", "2")
    assert PROJECT_NAME not in docker("volume", "ls", "--quiet")
    trained.run("restore", str(tmp_path / "backup"))
    wait_for(lambda: trained.answers("/readyz"), "the API serves the model again")
    restored = trained.ask("/predict", body=row)
    assert isinstance(restored, dict)
    assert restored["predictions"] == before["predictions"]
    assert trained.finished_runs() == runs
    log = within(trained.name("api"), "sh", "-c", "cat /log/predictions-*.jsonl").stdout
    assert before["request_id"] in log


def test_the_passwords_of_the_example_are_rejected(stack: Stack, tmp_path: Path) -> None:
    directory = tmp_path / "clone"
    directory.mkdir()
    shutil.copy(stack.directory / "compose.yml", directory)
    shutil.copy(PROJECT / ".env.example", directory / ".env")
    environ = {**_environ(), "COMPOSE_FILE": "compose.yml", "COMPOSE_PROJECT_NAME": "housing-example"}
    up = subprocess.run(
        ["docker", "compose", "up", "--detach", "api"], cwd=directory, env=environ, capture_output=True, check=False
    )
    logs = subprocess.run(
        ["docker", "compose", "logs", "passwords"], cwd=directory, env=environ, capture_output=True, text=True, check=True
    )
    running = docker("ps", "--quiet", "--filter", "label=com.docker.compose.project=housing-example")
    subprocess.run(["docker", "compose", "down"], cwd=directory, env=environ, capture_output=True, check=True)
    assert up.returncode != 0
    assert "error: .env has a password of the example" in logs.stdout
    assert running == ""
