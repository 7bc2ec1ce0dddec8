"""The doctor: says of each part what it found, and how to mend what is not right. The parts are real."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from housing.operations.health_checks import CHECKS, CheckResult, run_check
from tests.support.cluster import MlflowServer
from tests.support.commands import command
from tests.support.object_store import BUCKET, object_store
from tests.support.server import Server, promoted, serving
from tests.support.tables import config
from tests.support.waiting import wait_for

RENTALS = ("data=rentals",)


def found(home: Path, *overrides: str) -> dict[str, CheckResult]:
    """What each check finds in a home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOUSING_HOME", str(home))
        cfg = config("doctor", *RENTALS, *overrides)
        return {check.__name__: run_check(check, cfg) for check in CHECKS}


@contextmanager
def other_program(folder: Path) -> Iterator[str]:
    """A server of a folder's files, which is none of ours."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def well(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Server]:
    """A promoted model, served, in a home of its own."""
    with serving(promoted(tmp_path_factory.mktemp("well"), "rentals", empty_store)) as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        yield running


def test_what_is_right_is_told_with_what_was_found(well: Server) -> None:
    home = well.log.parent
    said = found(home, f"serve.url={well.url}")
    states = {name: one.state for name, one in said.items()}
    assert {name for name, state in states.items() if state == "skipped"} == {"remote", "prometheus", "grafana"}
    assert {name for name, state in states.items() if state == "failed"} == set(), said
    assert said["registry"].message == "housing-rentals version 1 at staging"
    assert said["bundle"].message == "version 1 is whole and gives its golden rows: xgboost on none"
    assert said["server"].message == f"{well.url} is ready and serves version 1"
    assert not list((home / "mlartifacts").rglob("doctor-*"))  # nothing of it stays


def test_the_command_ends_with_1_where_something_is_not_right_and_tells_each_cause_once(home: Path) -> None:
    (home / "mlflow.db").unlink()
    ended = command(home, "housing.doctor", "data=synthetic", "serve.url=http://127.0.0.1:9")
    assert ended.code == 1
    assert ended.err == "not right: table, store, server\n"
    lines = [line.strip() for line in ended.out.splitlines()]
    assert "mend it: python -m housing.fetch data=synthetic" in lines
    assert "-  registry    needs store" in lines and "-  metrics     needs server" in lines
    assert not (home / "mlflow.db").exists()  # looking makes nothing


def test_a_server_that_serves_another_version_is_told(well: Server) -> None:
    home = well.log.parent
    said = found(home, f"serve.url={well.url}", "serve.alias=other")
    assert (said["registry"].state, said["registry"].hint) == ("failed", "python -m housing.promote data=rentals")
    assert "has no version at other" in said["server"].message


def test_threads_beyond_the_cores_are_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "999")
    assert found(home)["threads"].hint == "unset OMP_NUM_THREADS"


def test_a_full_disk_is_told(home: Path) -> None:
    assert "MB free in" in found(home, "min_free_disk_mb=1000000000")["disk"].message


def test_a_table_that_is_not_the_version_of_git_is_told(versioned: Path) -> None:
    assert found(versioned)["remote"].hint.startswith("dvc push")
    with (versioned / "data" / "rentals.csv").open("a", encoding="utf-8") as file:
        file.write("1\n")
    assert "is not the version that rentals.csv.dvc names" in found(versioned)["table"].message


def test_artefacts_that_cannot_be_written_are_told(home: Path) -> None:
    (home / "a file").touch()
    said = found(home, f"mlflow.artifacts={home}/a file")["artefacts"]
    assert said.state == "failed" and "artefacts cannot be kept in file://" in said.message


@pytest.mark.long
def test_an_mlflow_server_that_does_not_know_its_name_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with MlflowServer(home, f"sqlite:///{home}/mlflow.db", environment={"MLFLOW_SERVER_ALLOWED_HOSTS": "else.where"}) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        said = found(home, "mlflow=server")["store"]
    assert said.state == "failed" and said.message.endswith("answers 403: it does not know itself by that name")
    assert "--allowed-hosts" in said.hint


@pytest.mark.long
def test_artefacts_on_s3_make_a_round_trip_and_a_wrong_key_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with object_store(home) as objects:
        for name, value in objects.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", objects.address)
        where = f"mlflow.artifacts=s3://{BUCKET}/runs"
        said = found(home, where)["artefacts"]
        assert said.message == f"written to, read from and removed from s3://{BUCKET}/runs/rentals"
        assert objects.names() == []
        wrong = command(home, "housing.doctor", "data=synthetic", where, AWS_SECRET_ACCESS_KEY="guessed")
        assert f"artefacts cannot be kept in s3://{BUCKET}/runs/synthetic: " in wrong.out


def test_another_program_at_the_address_is_told(home: Path) -> None:
    (home / "readyz").touch()
    (home / "model").write_text("<html>", encoding="utf-8")
    with other_program(home) as address:
        said = found(home, f"serve.url={address}")["server"]
    assert (said.state, said.message) == ("ill", f"{address}/model answers something else than was expected")
