"""The server as callers and operators meet it: real gunicorn workers, a real puller, a real store."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from housing.core.environment import PROJECT
from housing.core.errors import BundleError
from housing.promotion.promotion import promote
from housing.serving.verification import verify
from housing.tracking import store as tracking_store
from housing.tracking import tags
from housing.tracking.store import Store
from tests.support.commands import fresh_command
from tests.support.server import Server, assert_problem, children, free_port, gunicorn_alone, scraped, serving
from tests.support.tables import FLAT, config, train
from tests.support.waiting import SECONDS, wait_for

WORSE, BETTER = ("model=decision_tree", "figures=false", "model.estimator.max_depth=2"), ("model=linear", "figures=false")


@pytest.fixture(scope="module")
def server(served_home: Path) -> Iterator[Server]:
    """Yield the promoted model, served."""
    with serving(served_home, "serve.max_body=20000", "serve.max_rows=100") as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        yield running


@pytest.fixture
def store(served_home: Path) -> Store:
    """Return the store of the server. Each test connects anew, since MLflow downloads from the last connected store."""
    return tracking_store.Store(f"sqlite:///{served_home}/mlflow.db", artifact_root=None, ui="")


def test_one_row_and_many_rows_get_the_predictions_of_the_bundle(server: Server, store: Store) -> None:
    with store.artifacts.bundle("models:/housing-rentals@staging") as folder:
        golden = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    answer = server.predict(golden["rows"][3])
    assert (answer.status, answer.type) == (200, "application/json")
    assert answer.json["request_id"]
    result = {key: value for key, value in answer.json.items() if key != "request_id"}
    assert result == {"predictions": [pytest.approx(golden["predictions"][3])], "model": "housing-rentals", "version": "1"}
    many = server.predict({"instances": golden["rows"]})
    np.testing.assert_allclose(many.json["predictions"], golden["predictions"], rtol=1e-6)


def test_a_missing_value_of_a_nullable_column_is_null(server: Server) -> None:
    with_year, without_year = (server.predict({**FLAT, "built": built}) for built in (1910, None))
    assert without_year.status == 200
    assert without_year.json["predictions"] != with_year.json["predictions"]


BAD_ROWS = [  # a change of the row, the column of the error, and what its message names: value and limit
    ({"area": None}, "area", "(?i)missing"),
    ({"area": "50"}, "area", "'50'"),
    ({"area": True}, "area", "True"),
    ({"area": 1e999}, "area", "inf"),
    ({"area": 10**400}, "area", "number"),
    ({"area": 500.5}, "area", r"500\.5.*\b500\b|\b500\b.*500\.5"),
    ({"area": [50]}, "area", r"\[50\]"),
    ({"rooms": 2.5}, "rooms", r"2\.5"),
    ({"rooms": 0}, "rooms", r"\b0\b.*\b1\b|\b1\b.*\b0\b"),
    ({"furnished": 1}, "furnished", r"\b1\b"),
    ({"quarter": "moon"}, "quarter", "'moon'.*old town, harbour, hills|old town, harbour, hills.*'moon'"),
    ({"rent": 900}, "rent", "Not a column of this model"),
]


@pytest.mark.parametrize(("change", "field", "reason"), BAD_ROWS)
def test_an_invalid_value_is_rejected_with_row_field_and_reason(
    server: Server, change: dict[str, Any], field: str, reason: str
) -> None:
    body = json.dumps({"instances": [FLAT, {**FLAT, **change}]}).replace("Infinity", "1e999")
    answer = server.ask("/predict", body.encode())
    assert_problem(answer, 422, "1 invalid value")
    (error,) = answer.json["errors"]
    assert (error["row"], error["field"]) == (1, field)
    assert re.search(reason, error["reason"])


@pytest.mark.parametrize("field", [name for name in FLAT if name != "built"])  # the year is nullable and may be left out
def test_a_missing_required_field_is_rejected(server: Server, field: str) -> None:
    answer = server.predict({name: value for name, value in FLAT.items() if name != field})
    assert_problem(answer, 422, "1 invalid value")
    (error,) = answer.json["errors"]
    assert (error["row"], error["field"]) == (0, field) and "missing" in error["reason"].lower()


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"", 400, "not valid JSON"),
        (b"{", 400, "not valid JSON"),
        (b'{"area": NaN}', 400, "NaN is not a JSON number"),
        (b'{"area": -Infinity}', 400, "-Infinity is not a JSON number"),
        (b'{"area": 1, "area": 2}', 400, "duplicate key 'area'"),
        (b'{"area": "\xff"}', 400, "not valid JSON"),
        (b"[" * 19000, 400, "nested too deeply"),
        (b'{"area": ' + b"1" * 5000 + b"}", 400, "not valid JSON"),
        (b"[1, 2]", 422, "Request body must be a JSON object"),
        (b'"text"', 422, "Request body must be a JSON object"),
        (b'{"instances": []}', 422, "a list of at least one row"),
        (b'{"instances": {}}', 422, "a list of at least one row"),
        (b'{"instances": [1], "more": 2}', 422, "the only key"),
        (json.dumps({"instances": [{}] * 101}).encode(), 413, "at most 100 rows .got 101"),
        (b" " * 20001, 413, ""),
    ],
)
def test_a_body_without_valid_rows_is_rejected(server: Server, body: bytes, status: int, detail: str) -> None:
    assert_problem(server.ask("/predict", body), status, detail)


def test_a_row_that_is_not_an_object_is_reported(server: Server) -> None:
    answer = server.predict({"instances": [FLAT, 5]})
    assert_problem(answer, 422, "1 invalid value")
    assert answer.json["errors"] == [{"row": 1, "field": None, "reason": "Must be a JSON object."}]


def test_at_most_a_hundred_errors_are_listed(server: Server) -> None:
    answer = server.predict({"instances": [{}] * 100})
    assert_problem(answer, 422, "More than 100 invalid values")
    assert len(answer.json["errors"]) == 100


def test_errors_of_content_type_route_and_method_are_problems(server: Server) -> None:
    assert_problem(server.ask("/predict", b"{}", Content_Type="text/csv"), 415, "arrow.stream .got text/csv")
    assert_problem(server.ask("/nowhere"), 404, "There is no route /nowhere. GET /openapi.json lists all routes.")
    assert_problem(server.ask("/predict", method="PUT"), 405, "/predict does not take PUT. Methods: OPTIONS, POST.")
    assert_problem(server.ask("/predict", method="BREW"), 405, "/predict does not take BREW. Methods: OPTIONS, POST.")


def test_model_info_has_the_origin_and_a_valid_example(server: Server, store: Store) -> None:
    result = server.ask("/model").json
    assert (result["model"], result["version"], result["alias"]) == ("housing-rentals", "1", "staging")
    assert result["card"]["run_id"] == store.client.api.get_model_version("housing-rentals", "1").run_id
    assert list(result["schema"]["columns"])[:2] == ["area", "rooms"]
    assert server.predict(result["example"]).status == 200


def test_metrics_sum_the_requests_of_all_workers(server: Server) -> None:
    before = scraped(server)
    for _ in range(20):
        server.predict({"instances": [FLAT] * 3})
        server.predict({**FLAT, "area": -1})
        server.ask("/made-up/by/the/caller")
    after = scraped(server)

    def risen(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    assert risen('housing_rows_total{version="1"}') == 60
    assert risen('housing_request_seconds_count{route="/predict",status="200"}') == 20
    assert risen('housing_request_seconds_count{route="/predict",status="422"}') == 20
    assert risen('housing_request_seconds_count{route="unknown",status="404"}') == 20
    assert not any("made-up" in name for name in after)
    assert len(server.workers()) == 2


HEAVY = ("mlflow", "pandas", "sklearn", "xgboost", "hydra", "omegaconf")


@pytest.mark.usefixtures("server")
def test_workers_import_no_training_library(tmp_path: Path) -> None:
    with gunicorn_alone(sys.executable, tmp_path / "log", PYTHONPROFILEIMPORTTIME="1") as running:
        assert running.predict(FLAT).status == 200
        assert running.predict({}).status == 422
        assert running.answers("/model") and running.answers("/metrics")
    imported = {
        line.rpartition("|")[2].strip()
        for line in running.log.read_text(encoding="utf-8").splitlines()
        if line.startswith("import time:")
    }
    assert {"housing.bundle", "onnxruntime", "server.api.routes"} <= imported
    assert not {name for name in imported if name.split(".")[0] in HEAVY}


def test_only_workers_that_need_onnx_runtime_load_it(server: Server, rentals_server: Server) -> None:
    """The server's model is linear; the other one is all trees."""
    pytest.importorskip("housing.bundle.tree_walker", reason="the walker is not built: no C compiler")
    for running, needs_it in ((server, True), (rentals_server, False)):
        assert running.predict(FLAT).status == 200
        for worker in running.workers():
            assert ("onnxruntime" in Path(f"/proc/{worker}/maps").read_text(encoding="utf-8")) == needs_it


@pytest.mark.long
@pytest.mark.usefixtures("server")
def test_the_serve_lock_alone_serves(tmp_path: Path) -> None:
    """A virtual environment with the workers' lock and nothing else: what is not there cannot be imported."""
    uv, python, lock = f"{sys.prefix}/bin/uv", str(tmp_path / "venv/bin/python"), str(PROJECT / "locks/serve.txt")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv")], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", lock], check=True)
    for absent in HEAVY:
        assert subprocess.run([python, "-c", f"import {absent}"], capture_output=True, check=False).returncode == 1
    with gunicorn_alone(python, tmp_path / "log") as running:
        assert running.predict(FLAT).status == 200
        assert running.answers("/metrics")


def test_a_server_without_a_model_becomes_ready_on_promotion_and_swaps_later_versions(home: Path) -> None:
    (home / "mlflow.db").unlink()  # not even a store
    with serving(home) as running:
        assert running.answers("/healthz")
        for answer in (running.ask("/readyz"), running.predict(FLAT), running.ask("/model")):
            assert_problem(answer, 503, "No model is available yet")
        workers = running.workers()
        worse = train(home, *WORSE)
        assert promote(config("promote", "data=rentals")).version == "1"
        wait_for(lambda: running.answers("/readyz"), "version 1 is served")
        train(home, *BETTER)
        assert promote(config("promote", "data=rentals")).version == "2"
        wait_for(lambda: {running.ask("/model").json["version"] for _ in range(20)} == {"2"}, "all workers serve version 2")

        corrupt(home, str(worse.run_id))
        store = tracking_store.connect(config("train", "data=rentals").mlflow)
        store.registry.set_alias("housing-rentals", "staging", "1")
        wait_for(lambda: "Version rejected" in running.log.read_text(encoding="utf-8"), "the puller refuses the corrupt version")
        assert running.ask("/model").json["version"] == "2"
        assert running.predict(FLAT).status == 200
        assert running.workers() == workers  # all that without a restart
    assert "model.onnx does not match its checksum" in running.log.read_text(encoding="utf-8")


def corrupt(home: Path, run_id: str) -> None:
    """Change a byte of a run's bundle in the store."""
    graph = graph_of(home, run_id)
    graph.write_bytes(graph.read_bytes() + b"\0")


def graph_of(home: Path, run_id: str) -> Path:
    """Return the path of a graph of a run's bundle in the store."""
    store = tracking_store.connect(config("train", "data=rentals").mlflow)
    model = store.client.api.get_logged_model(store.runs.get(run_id).tags[tags.MODEL_ID])
    graph = Path(model.artifact_location.removeprefix("file://")) / "data/bundle/members/0/model.onnx"
    assert home in graph.parents
    return graph


@pytest.mark.long
def test_a_version_with_breaking_columns_is_rejected_and_counted_once(home: Path) -> None:
    train(home, *BETTER)
    promote(config("promote", "data=rentals"))
    with serving(home) as running:
        wait_for(lambda: running.answers("/readyz"), "version 1 is served")
        store = tracking_store.connect(config("train", "data=rentals").mlflow)
        other = train(
            home, *BETTER, "data.columns.rooms.type=float", "data.columns.quarter.categories=[old town,harbour,hills,sea]"
        )
        version_2 = store.registry.register("housing-rentals", str(other.run_id))
        store.registry.set_alias("housing-rentals", "staging", version_2)
        wait_for(lambda: scraped(running).get("housing_versions_rejected_total") == 1, "the refusal is counted")
        log_ = running.log.read_text(encoding="utf-8")
        assert "Breaking column changes: column rooms changed its type from int to float" in log_
        wait_for(lambda: scraped(running)["housing_version_rejected"] == 1, "the refusal stands")
        assert running.predict(FLAT).json["version"] == "1"
        better = train(home, *BETTER, "max_rows=500")
        store.registry.set_alias("housing-rentals", "staging", store.registry.register("housing-rentals", str(better.run_id)))
        wait_for(lambda: scraped(running).get("housing_versions_published_total") == 2, "the next version is published")
        assert scraped(running)["housing_versions_rejected_total"] == 1  # though it was at the alias for many looks

        gone = train(home, *BETTER, "max_rows=400")
        shutil.rmtree(graph_of(home, str(gone.run_id)).parents[4])
        store.registry.set_alias("housing-rentals", "staging", store.registry.register("housing-rentals", str(gone.run_id)))
        wait_for(lambda: scraped(running)["housing_versions_rejected_total"] == 2, "what cannot be had is counted")
        assert scraped(running)["housing_version_rejected"] == 1
        result = running.log.read_text(encoding="utf-8").count("Version rejected; the current version stays")
        store.registry.set_alias("housing-rentals", "staging", "3")
        wait_for(lambda: running.predict(FLAT).json["version"] == "3", "the one before serves")
        assert (result, scraped(running)["housing_versions_rejected_total"]) == (2, 2)
        wait_for(lambda: scraped(running)["housing_version_rejected"] == 0, "no refusal stands")
    with serving(home, "serve.forbid_breaking_columns=false") as running:
        store.registry.set_alias("housing-rentals", "staging", version_2)
        wait_for(lambda: running.predict(FLAT).json.get("version") == version_2, "the operator takes the other columns")


@pytest.mark.usefixtures("served_home")
def test_verification_is_limited_in_time_and_memory(store: Store) -> None:
    with store.artifacts.bundle("models:/housing-rentals@staging") as folder:
        verify(folder, folder, memory_mb=1000, seconds=60, n_rows=10_000)
        with pytest.raises(BundleError, match="took more than 0.01 s"):
            verify(folder, None, memory_mb=1000, seconds=0.01, n_rows=10_000)
        with pytest.raises(BundleError, match="memory limit 60 MB"):
            verify(folder, None, memory_mb=60, seconds=60, n_rows=10_000)


def test_sigterm_fails_the_readiness_check_before_the_server_stops(served_home: Path) -> None:
    with serving(served_home, "serve.drain_seconds=3") as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        running.process.terminate()
        wait_for(lambda: running.ask("/readyz").status == 503, "it asks for no more requests", 2)
        assert_problem(running.ask("/readyz"), 503, "shutting down")
        assert running.answers("/healthz")
        assert running.predict(FLAT).status == 200
        assert running.process.wait(SECONDS) == 0


def test_a_restart_serves_the_last_model_while_the_store_is_unavailable(served_home: Path, server: Server) -> None:
    assert server.answers("/readyz")
    with serving(served_home, "serve.tracking_uri=http://127.0.0.1:9") as running:
        assert running.answers("/readyz")
        assert running.predict(FLAT).json["predictions"] == server.predict(FLAT).json["predictions"]


def test_a_setting_that_is_missing_is_named(tmp_path: Path) -> None:
    result = fresh_command(tmp_path, "housing.serving.puller", HOUSING_MODEL="m", HOUSING_ALIAS="a")
    assert result.code == 1
    assert "variable HOUSING_TRACKING_URI is missing" in result.err


def test_stopping_ends_every_process(served_home: Path) -> None:
    with serving(served_home) as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        pids = children(running.process.pid) + running.workers()
        assert len(pids) == 5  # gunicorn, puller, joiner, two workers
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "all are gone")


@pytest.mark.long
def test_child_processes_end_with_a_killed_server(served_home: Path) -> None:
    with serving(served_home) as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        pids = children(running.process.pid) + running.workers()
        assert len(pids) == 5  # gunicorn, puller, joiner, two workers
        running.process.kill()
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "all are gone")


@pytest.mark.long
def test_a_puller_that_dies_is_replaced_and_a_damaged_copy_heals(home: Path) -> None:
    train(home, *BETTER)
    promote(config("promote", "data=rentals"))
    with serving(home) as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        (card,) = (home / "serving").glob("rentals-staging/1-*/bundle/card.json")
        card.write_text("damaged", encoding="utf-8")
        puller = int(
            subprocess.run(
                ["pgrep", "-P", str(running.process.pid), "-f", "housing.serving.puller"], capture_output=True, check=True
            ).stdout
        )
        os.kill(puller, signal.SIGKILL)
        wait_for(lambda: "The puller exited" in running.log.read_text(encoding="utf-8"), "another puller")
        wait_for(lambda: card.is_file() and card.read_text(encoding="utf-8") != "damaged", "the copy heals")
        assert running.predict(FLAT).status == 200


def test_a_port_in_use_ends_the_second_server_and_keeps_the_metrics_of_the_first(served_home: Path, server: Server) -> None:
    rows = 'housing_rows_total{version="1"}'
    server.predict(FLAT)
    before = scraped(server)[rows]
    port = server.url.rpartition(":")[2]
    result = fresh_command(
        served_home, "housing.serve", f"--config-dir={PROJECT}/tests/tables", "data=rentals", f"serve.port={port}"
    )
    assert result.code != 0
    assert f"port {port}: Address already in use. Choose another with serve.port=" in result.err
    assert result.out == ""
    assert scraped(server)[rows] >= before > 0


@pytest.mark.long
def test_the_pull_lock_alone_pulls_from_an_mlflow_server(served_home: Path, tmp_path: Path) -> None:
    uv, python, lock = f"{sys.prefix}/bin/uv", str(tmp_path / "venv/bin/python"), str(PROJECT / "locks/pull.txt")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv")], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", lock], check=True)
    port, database = free_port(), f"sqlite:///{served_home}/mlflow.db"
    arguments = ["mlflow", "server", "--backend-store-uri", database, "--port", str(port), "--workers", "1"]
    arguments += ["--serve-artifacts", "--artifacts-destination", str(served_home / "mlartifacts")]
    serve = config(
        "serve", "data=rentals", f"serve.tracking_uri=http://127.0.0.1:{port}", f"serve.release_dir={tmp_path}/pulled"
    ).serve
    environ = {f"HOUSING_{str(name).upper()}": str(value) for name, value in serve.items()}
    environ["PROMETHEUS_MULTIPROC_DIR"] = str(tmp_path)
    with (tmp_path / "log").open("wb") as log:
        # pylint: disable=consider-using-with  # both are ended below
        store_process = subprocess.Popen([sys.executable, "-m", *arguments], stdout=log, stderr=log)
        puller = subprocess.Popen([python, "-m", "housing.serving.puller"], cwd=PROJECT, env=environ, stdout=log, stderr=log)
    try:
        published = tmp_path / "pulled" / "current" / "bundle" / "SHA256SUMS"
        wait_for(published.is_file, f"the puller publishes: {(tmp_path / 'log').read_text(encoding='utf-8')[-2000:]}")
        served = json.loads((tmp_path / "pulled" / "current" / "release.json").read_text(encoding="utf-8"))
        assert served == {"model": "housing-rentals", "version": "1", "alias": "staging", "mlflow": version("mlflow")}
    finally:
        for process in (puller, store_process):
            process.terminate()
            process.wait(60)
