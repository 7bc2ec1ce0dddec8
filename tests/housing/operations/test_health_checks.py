"""Health checks against real parts: results, causes of failures, and hints on how to fix them."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from housing.operations.health_checks import FAILED, PASSED, SKIPPED, CheckResult, run_checks
from tests.support.cluster import MlflowServer
from tests.support.commands import command
from tests.support.object_store import BUCKET, object_store
from tests.support.server import Server, promoted, serving
from tests.support.tables import config
from tests.support.waiting import wait_for

RENTALS = ("data=rentals",)


def check(home: Path, *overrides: str) -> dict[str, CheckResult]:
    """Return the results of all checks in a home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOUSING_HOME", str(home))
        return dict(run_checks(config("doctor", *RENTALS, *overrides)))


@contextmanager
def other_program(directory: Path) -> Iterator[str]:
    """Serve the files of a directory with another program than this project's server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(directory))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def healthy_server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Server]:
    """Serve a promoted model in a home of its own."""
    with serving(promoted(tmp_path_factory.mktemp("healthy"), "rentals", empty_store)) as running:
        wait_for(lambda: running.answers("/readyz"), "the model is served")
        yield running


def test_a_healthy_installation_passes_all_checks(healthy_server: Server) -> None:
    home = healthy_server.log.parent
    results = check(home, f"serve.url={healthy_server.url}")
    states = {name: result.state for name, result in results.items()}
    assert {name for name, state in states.items() if state == SKIPPED} == {"remote", "keys", "prometheus", "grafana"}
    assert FAILED not in states.values(), results
    assert results["registry"].message == "housing-rentals version 1 at staging"
    assert results["bundle"].message == "version 1 is complete and predicts its golden rows: xgboost on none"
    assert results["server"].message == f"{healthy_server.url} is ready and serves version 1"
    assert not list((home / "mlartifacts").rglob("doctor-*"))  # the test file is deleted


def test_the_command_exits_with_code_1_and_reports_each_cause_once(home: Path) -> None:
    (home / "mlflow.db").unlink()
    doctor = command(home, "housing.doctor", "data=synthetic", "serve.url=http://127.0.0.1:9")
    assert doctor.code == 1
    assert doctor.err == "3 checks failed: table, store, server\n"
    lines = [line.strip() for line in doctor.out.splitlines()]
    assert "fix: python -m housing.fetch data=synthetic" in lines
    assert "-  registry    needs store" in lines and "-  metrics     needs server" in lines
    assert not (home / "mlflow.db").exists()  # checks create nothing


def test_an_alias_without_a_version_fails_once(healthy_server: Server) -> None:
    home = healthy_server.log.parent
    results = check(home, f"serve.url={healthy_server.url}", "serve.alias=other")
    assert (results["registry"].state, results["registry"].hint) == (FAILED, "python -m housing.promote data=rentals")
    assert (results["server"].state, results["server"].message) == (SKIPPED, "needs registry")


def test_a_keys_file_that_others_can_read_fails(home: Path) -> None:
    file = home / "my keys"
    override = f"serve.keys_file='{file}'"
    assert check(home, override)["keys"].state == FAILED
    for mode, readers in ((0o640, "its group"), (0o604, "all users")):
        file.touch()
        file.chmod(mode)
        result = check(home, override)["keys"]
        assert result.message == f"{file} can be read by {readers} (mode {mode:04o})"
        assert result.hint == f"chmod 600 '{file}'"
    file.chmod(0o600)
    assert check(home, override)["keys"].state == PASSED


def test_more_threads_than_cores_fail(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "999")
    assert check(home)["threads"].hint == "unset OMP_NUM_THREADS"


def test_a_full_disk_fails(home: Path) -> None:
    assert "MB free in" in check(home, "min_free_disk_mb=1000000000")["disk"].message


def test_a_table_that_is_not_the_tracked_version_fails(versioned: Path) -> None:
    assert check(versioned)["remote"].hint.startswith("dvc commit")
    with (versioned / "data" / "rentals.csv").open("a", encoding="utf-8") as file:
        file.write("1\n")
    assert "is not the version that rentals.csv.dvc tracks" in check(versioned)["table"].message


def test_an_artifact_location_that_is_not_writable_fails(home: Path) -> None:
    (home / "a file").touch()
    result = check(home, f"mlflow.artifacts={home}/a file")["artifacts"]
    assert result.state == FAILED and "Could not store artifacts in file://" in result.message


@pytest.mark.long
def test_an_mlflow_server_that_does_not_allow_its_host_name_fails(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with MlflowServer(home, f"sqlite:///{home}/mlflow.db", environment={"MLFLOW_SERVER_ALLOWED_HOSTS": "else.where"}) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        result = check(home, "mlflow=server")["store"]
    assert result.state == FAILED and result.message.endswith("answers 403: the server does not allow this host name")
    assert "--allowed-hosts" in result.hint


@pytest.mark.long
def test_artifacts_on_s3_pass_and_a_wrong_key_fails(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with object_store(home) as objects:
        for name, value in objects.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", objects.address)
        location = f"mlflow.artifacts=s3://{BUCKET}/runs"
        result = check(home, location)["artifacts"]
        assert result.message == f"wrote, read and deleted a file in s3://{BUCKET}/runs/rentals"
        assert objects.names() == []
        wrong = command(home, "housing.doctor", "data=synthetic", location, AWS_SECRET_ACCESS_KEY="guessed")
        assert f"Could not store artifacts in s3://{BUCKET}/runs/synthetic: " in wrong.out


def test_another_program_at_the_address_of_the_server_fails(home: Path) -> None:
    (home / "readyz").touch()
    (home / "model").write_text("<html>", encoding="utf-8")
    with other_program(home) as address:
        result = check(home, f"serve.url={address}")["server"]
    assert (result.state, result.message) == (FAILED, f"{address}/model gave an unexpected answer")
