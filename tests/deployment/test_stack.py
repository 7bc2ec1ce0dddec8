"""The stack of compose.yml, run for real; for what cannot be pulled, stand-ins (.ci/images.sh) run the same programs."""

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

pytestmark = [pytest.mark.docker, pytest.mark.skipif(bool(engine.missing()), reason=engine.missing() or "all is there")]

PROJECT_NAME = "housing-tests"
QUICK = ("features=none", "refit=false", "interval=none", "figures=false")


@dataclass(frozen=True)
class Stack:
    """The stack of a clone."""

    place: Path

    def run(self, *arguments: str, check: bool = True) -> str:
        """Run scripts/stack, and give what it prints."""
        done = subprocess.run(
            ["./scripts/stack", *arguments],
            cwd=self.place,
            env=_environ(),
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout + done.stderr

    def name(self, service: str) -> str:
        """Give the name of a service's container."""
        return f"{PROJECT_NAME}-{service}-1"

    def ask(self, route: str, service: str = "api", port: int = 8000, body: object = None, host: str = "") -> object:
        """Ask a service for JSON, by the address of its container."""
        headers = {"Content-Type": "application/json", **({"Host": host} if host else {})}
        sent = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{address(self.name(service))}:{port}{route}", sent, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def answers(self, route: str, service: str = "api", port: int = 8000) -> bool:
        """Whether a service answers with 200."""
        try:
            self.ask(route, service, port)
        except (OSError, ValueError):
            return False
        return True

    def is_healthy(self, service: str) -> bool:
        """Whether a service's health check passes."""
        return inspect(self.name(service), ".State.Health.Status") == "healthy"

    def finished_runs(self) -> set[str]:
        """The runs that MLflow has as finished."""
        asked = {"experiment_ids": ["0", "1", "2"], "filter": "attributes.status = 'FINISHED'", "max_results": 100}
        found = self.ask("/api/2.0/mlflow/runs/search", "mlflow", 5000, asked, "mlflow:5000")
        assert isinstance(found, dict)
        return {run["info"]["run_id"] for run in found["runs"]}


def _environ() -> dict[str, str]:
    files = {"COMPOSE_FILE": "compose.yml:tests/stack/compose.yml", "COMPOSE_PROJECT_NAME": PROJECT_NAME}
    return {**os.environ, **files, "VERSION": engine.VERSION}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, real_home: Path) -> Iterator[Stack]:
    """The stack of a clone with the table of California, up and healthy."""
    place = clone(tmp_path_factory.mktemp("stack") / "clone")
    shutil.copy(real_home / "data" / "california.csv", place / "data")
    build(place)
    found = Stack(place)
    try:
        found.run("up")
        yield found
    finally:
        found.run("down", "--volumes", "--timeout", "2", check=False)


@pytest.fixture(scope="module")
def trained(stack: Stack) -> Stack:
    """The stack once a model has been trained and promoted inside."""
    begun = inspect(stack.name("api"), ".State.StartedAt")
    assert "staging is version 1" in stack.run("train", "-m", "model=linear,decision_tree", *QUICK)
    wait_for(lambda: stack.answers("/readyz"), "the API serves it")
    assert inspect(stack.name("api"), ".State.StartedAt") == begun  # without a restart
    return stack


def example(stack: Stack) -> object:
    """The row that the model itself gives as an example."""
    told = stack.ask("/model")
    assert isinstance(told, dict)
    return told["example"]


def test_training_inside_is_served_without_a_restart(trained: Stack) -> None:
    assert trained.ask("/readyz") == {"status": "ready", "version": "1"}


def test_prometheus_sees_the_api(trained: Stack) -> None:
    def sees() -> bool:
        said = trained.ask("/api/v1/query?query=up%7Bjob%3D%22housing%22%7D", "prometheus", 9090)
        assert isinstance(said, dict)
        return [series["value"][1] for series in said["data"]["result"]] == ["1"]

    wait_for(sees, "the API is up, to Prometheus")


def test_database_and_s3_share_a_network_with_mlflow_alone(stack: Stack) -> None:
    """That addresses of another network are out of reach is up to the engine's own packet filter."""
    joined = docker("ps", "--format", "{{.Names}}", "--filter", f"network={PROJECT_NAME}_data").split()
    assert set(joined) == {stack.name(service) for service in ("postgres", "s3", "mlflow")}
    assert docker("network", "inspect", "--format", "{{.Internal}}", f"{PROJECT_NAME}_data") == "true"


def test_what_asks_for_no_key_in_s3_answers_itself_alone(stack: Stack) -> None:
    for port in (8888, 9333, 8080):  # filer, master, volumes
        reach = f"import socket; socket.create_connection(('s3', {port}), 3)"
        assert "Connection refused" in within(stack.name("mlflow"), "python", "-c", reach).stderr


@pytest.mark.parametrize("service", ["mlflow", "s3", "postgres"])
def test_no_request_fails_and_no_run_is_lost_while_what_is_behind_dies(trained: Stack, service: str) -> None:
    before = trained.finished_runs()
    with callers(address(trained.name("api")), example(trained), keep_alive=True) as results:
        started = inspect(trained.name(service), ".State.StartedAt")
        os.kill(child_of(trained.name(service)), signal.SIGKILL)
        wait_for(lambda: inspect(trained.name(service), ".State.StartedAt") != started, "it is started again")
        wait_for(lambda: trained.is_healthy(service) and trained.is_healthy("mlflow"), "it is healthy again")
    print(f"{service} killed: {results.requests} requests, {len(results.failed)} failed")
    assert results.requests > 100
    assert not results.failed
    assert trained.finished_runs() == before


def test_a_backup_brings_everything_back_on_an_empty_machine(trained: Stack, tmp_path: Path) -> None:
    row, runs = example(trained), trained.finished_runs()
    said = trained.ask("/predict", body=row)
    assert isinstance(said, dict)
    with callers(address(trained.name("api")), row, keep_alive=True) as results:
        trained.run("backup", str(tmp_path / "backup"))
    assert results.requests and not results.failed
    assert "a registry exists already" in trained.run("restore", str(tmp_path / "backup"), check=False)
    trained.run("down", "--volumes", "--timeout", "2")
    assert PROJECT_NAME not in docker("volume", "ls", "--quiet")
    trained.run("restore", str(tmp_path / "backup"))
    wait_for(lambda: trained.answers("/readyz"), "the API serves the model again")
    again = trained.ask("/predict", body=row)
    assert isinstance(again, dict)
    assert again["predictions"] == said["predictions"]
    assert trained.finished_runs() == runs
    logged = within(trained.name("api"), "sh", "-c", "cat /log/predictions-*.jsonl").stdout
    assert said["request_id"] in logged


def test_passwords_of_the_example_start_nothing(stack: Stack, tmp_path: Path) -> None:
    place = tmp_path / "clone"
    place.mkdir()
    shutil.copy(stack.place / "compose.yml", place)
    shutil.copy(PROJECT / ".env.example", place / ".env")
    environ = {**_environ(), "COMPOSE_FILE": "compose.yml", "COMPOSE_PROJECT_NAME": "housing-example"}
    ended = subprocess.run(
        ["docker", "compose", "up", "--detach", "api"], cwd=place, env=environ, capture_output=True, check=False
    )
    said = subprocess.run(
        ["docker", "compose", "logs", "passwords"], cwd=place, env=environ, capture_output=True, text=True, check=True
    )
    running = docker("ps", "--quiet", "--filter", "label=com.docker.compose.project=housing-example")
    subprocess.run(["docker", "compose", "down"], cwd=place, env=environ, capture_output=True, check=True)
    assert ended.returncode != 0
    assert "error: .env has a password of the example" in said.stdout
    assert running == ""
