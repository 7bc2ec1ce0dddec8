"""One server with many models, from a real registry."""

import gzip
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from housing.core.errors import ConfigError
from housing.feedback.log_reader import LogFilter, read_entries, read_joined_rows
from housing.serving.supervisor import server_environment
from housing.tracking import store as tracking
from server.core.settings import Settings
from tests.server.inference_protocol.test_clients import FLATS, run_client
from tests.support.server import Server, assert_problem, scraped, serving
from tests.support.tables import FLAT, config, rentals_frame, towns_frame, train
from tests.support.waiting import wait_for

pytestmark = pytest.mark.long

FIRST, OTHER_ALIAS, TOWNS = "housing-rentals@staging", "housing-rentals@production", "housing-towns@staging"
NAMES = (FIRST, OTHER_ALIAS, TOWNS)
BODY = json.dumps(FLAT).encode()


@pytest.fixture(scope="module")
def models_home(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A home with two versions of a model of rentals, each at an alias, and a model of towns."""
    directory = tmp_path_factory.mktemp("models")
    (directory / "data").mkdir()
    rentals_frame().to_csv(directory / "data" / "rentals.csv", index=False)
    towns_frame().to_csv(directory / "data" / "towns.csv", index=False)
    shutil.copy(empty_store, directory / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOUSING_HOME", str(directory))
        for table, alias, trees in (("rentals", "staging", 50), ("rentals", "production", 5), ("towns", "staging", 20)):
            outcome = train(directory, f"data={table}", "figures=false", f"model.estimator.n_estimators={trees}")
            registry = _registry()
            registry.set_alias(f"housing-{table}", alias, registry.register(f"housing-{table}", str(outcome.run_id)))
    return directory


def _registry() -> Any:
    return tracking.connect(config("train", "data=rentals").mlflow).registry


@contextmanager
def serving_models(home_: Path, models: str, *overrides: str) -> Iterator[Server]:
    """Run a server of many models that has them all in memory, as far as they have room there."""
    with serving(home_, f"serve.models={models}", "serve.workers=1", *overrides) as server:
        wait_for(lambda: all(model["version"] for model in listed(server).values()), "all models are published")
        yield server


@pytest.fixture(scope="module")
def server(models_home: Path) -> Iterator[Server]:
    """Return a server of three models."""
    with serving_models(models_home, f"[{','.join(NAMES)}]", f"serve.release_dir={models_home}/three") as running:
        wait_for(lambda: all(model["in_memory"] for model in listed(running).values()), "all models are loaded")
        yield running


def listed(server: Server) -> dict[str, Any]:
    """Return the models of a server by name."""
    return {model["name"]: model for model in server.ask("/models").json["models"]}


def example(server: Server, name: str) -> bytes:
    """Return a valid row of a model."""
    answer = server.ask(f"/models/{name}/model")
    assert answer.status == 200, answer
    return json.dumps(answer.json["example"]).encode()


def test_each_name_answers_with_its_own_model(server: Server) -> None:
    assert list(listed(server)) == list(NAMES)
    assert listed(server)[OTHER_ALIAS] == {
        "name": OTHER_ALIAS,
        "model": "housing-rentals",
        "alias": "production",
        "version": "2",
        "canary": None,
        "in_memory": True,
    }
    answers = {name: server.ask(f"/models/{name}/predict", example(server, name)).json for name in NAMES}
    assert [(answer["model"], answer["version"]) for answer in answers.values()] == [
        ("housing-rentals", "1"),
        ("housing-rentals", "2"),
        ("housing-towns", "1"),
    ]
    body = example(server, FIRST)
    predictions = {path: server.ask(path, body).json["predictions"] for path in ("/predict", "/models/housing-rentals/predict")}
    assert set(map(str, predictions.values())) == {str(answers[FIRST]["predictions"])}  # the first of a model has its plain name
    assert server.ask(f"/models/{OTHER_ALIAS}/predict", body).json["predictions"] != answers[FIRST]["predictions"]
    assert server.ask(f"/models/{TOWNS}/invocations", json.dumps({"instances": [json.loads(example(server, TOWNS))]}).encode())
    assert server.ask("/models/housing-rentals%40production/predict", body).json["version"] == "2"


def test_the_other_routes_of_a_model(server: Server) -> None:
    root = f"/models/{TOWNS}"
    document = server.ask(f"{root}/openapi.json").json
    assert document["servers"] == [{"url": root}]
    assert "/predict" in document["paths"] and "/readyz" not in document["paths"]
    assert "lat" in json.dumps(document["components"]["schemas"]["Row"])
    assert set(server.ask(f"{root}/explain", example(server, TOWNS)).json["contributions"]) >= {"area", "garden"}
    assert f'data-root="{root}/"' in server.ask(f"{root}/").text
    assert f"{root}/openapi.json" in server.ask(f"{root}/docs").text
    assert server.ask(f"{root}/predict").status == 405
    for route in ("/metrics", "/readyz", "/models", "/v2", ""):
        assert server.ask(root + route).status == 404, route


@pytest.mark.parametrize("route", ["predict", "invocations", "model", "explain", "docs", "openapi.json", "feedback"])
def test_an_unknown_name_is_answered_with_the_nearest(server: Server, route: str) -> None:
    body = BODY if route in ("predict", "invocations", "explain", "feedback") else None
    answer = server.ask(f"/models/housing-town@staging/{route}", body)
    assert_problem(answer, 404, r"no model 'housing-town@staging'. Did you mean 'housing-towns@staging'\? GET /models")


def test_the_open_inference_protocol_knows_each_name(server: Server) -> None:
    assert server.ask(f"/v2/models/{OTHER_ALIAS}/versions/2/ready").json == {"name": OTHER_ALIAS, "ready": True}
    assert server.ask(f"/v2/models/{TOWNS}").json["name"] == TOWNS
    tensors = [{"name": name, "shape": [1], "datatype": "BYTES", "data": [value]} for name, value in FLAT.items()]
    for tensor, datatype in zip(tensors, ("FP64", "INT64", "BOOL", "BYTES", "INT64"), strict=True):
        tensor["datatype"] = datatype
    answer = server.ask(f"/v2/models/{OTHER_ALIAS}/infer", json.dumps({"inputs": tensors}).encode()).json
    expected = server.ask(f"/models/{OTHER_ALIAS}/predict", BODY).json["predictions"]
    assert (answer["model_name"], answer["model_version"], answer["outputs"][0]["data"]) == (OTHER_ALIAS, "2", expected)
    unknown = server.ask("/v2/models/housing-rental/infer", json.dumps({"inputs": tensors}).encode())
    assert (unknown.status, list(unknown.json)) == (404, ["error"])
    assert "Did you mean 'housing-rentals'?" in unknown.json["error"]
    assert server.ask(f"/v2/models/{FIRST}/versions/2").status == 404


@pytest.mark.long  # the first run installs the client
def test_tritonclient_reaches_a_model_at_an_alias(server: Server) -> None:
    answers = run_client("mlserver", "triton", server, model=OTHER_ALIAS, version="2")
    body = json.dumps({"instances": FLATS}).encode()
    expected = server.ask(f"/models/{OTHER_ALIAS}/predict", body).json["predictions"]
    assert answers["columns, binary True"] == expected


def test_metrics_log_and_feedback_are_by_model(server: Server, models_home: Path) -> None:
    log_dir = models_home / "three.log"
    answers = {name: server.ask(f"/models/{name}/predict?interval=0.9", example(server, name)) for name in NAMES}
    for name, answer in answers.items():
        label = {"request_id": answer.json["request_id"], "value": answer.json["predictions"][0] + 1}
        assert server.ask(f"/models/{name}/feedback", json.dumps(label).encode()).status == 202
    wait_for(
        lambda: all(
            scraped(server).get(f'housing_feedback_matched_total{{name="{name}",version="{version}"}}', 0) >= 1
            for name, version in zip(NAMES, ("1", "2", "1"), strict=True)
        ),
        "the feedback of each model is counted",
    )
    metrics = scraped(server)
    for name, version in zip(NAMES, ("1", "2", "1"), strict=True):
        assert metrics[f'housing_rows_total{{name="{name}",version="{version}"}}'] >= 1
        assert metrics[f'housing_request_seconds_count{{route="/models/{name}/predict",status="200"}}'] >= 1
        assert metrics[f'housing_request_seconds_count{{route="/models/{name}/predict",status="500"}}'] == 0
        assert any(key.startswith("housing_column_bin_total") and f'name="{name}"' in key for key in metrics)
        assert metrics[f'housing_version_rejected{{name="{name}"}}'] == 0
        assert any(key.startswith("housing_model_info") and f'name="{name}"' in key for key in metrics)
        entries, _ = read_entries(log_dir, LogFilter(name=name))
        assert answers[name].json["request_id"] in {entry["id"] for entry in entries}
        assert {row["version"] for row in read_joined_rows(log_dir / name)} == {version}


def test_no_request_fails_while_an_alias_moves(models_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUSING_HOME", str(models_home))
    registry, moving = _registry(), "housing-rentals@staging"
    with serving_models(models_home, f"[{TOWNS},{moving}]", f"serve.release_dir={models_home}/swap") as server:
        statuses: list[int] = []
        versions: list[str] = []
        stop = threading.Event()

        def send() -> None:
            while not stop.is_set():
                answer = server.ask(f"/models/{moving}/predict", BODY)
                statuses.append(answer.status)
                versions.append(answer.json.get("version", answer.text))

        sender = threading.Thread(target=send)
        sender.start()
        try:
            for version in ("2", "1", "2", "1"):
                registry.set_alias("housing-rentals", "staging", version)
                wait_for(lambda wanted=version: versions[-1:] == [wanted], f"version {version} is served")  # type: ignore[misc]
        finally:
            stop.set()
            sender.join()
            registry.set_alias("housing-rentals", "staging", "1")
        assert set(statuses) == {200}
        assert set(versions) == {"1", "2"}


def test_a_watched_file_loads_and_unloads_models(models_home: Path, tmp_path: Path) -> None:
    file, releases = tmp_path / "models.yaml", tmp_path / "serving"

    def write(*names: str) -> None:
        (tmp_path / "new").write_text("".join(f"- {name}\n" for name in names), encoding="utf-8")
        (tmp_path / "new").rename(file)

    write(FIRST, TOWNS)
    with serving_models(models_home, str(file), f"serve.release_dir={releases}") as server:
        assert server.ask(f"/models/{TOWNS}/predict", example(server, TOWNS)).status == 200
        write(FIRST, OTHER_ALIAS)
        wait_for(lambda: server.ask(f"/models/{OTHER_ALIAS}/predict", BODY).status == 200, "the added model answers")
        assert server.ask(f"/models/{TOWNS}/predict", BODY).status == 404
        wait_for(lambda: not (releases / TOWNS).exists(), "the release of the removed model is removed")
        wait_for(lambda: not any(TOWNS in key for key in scraped(server) if "rows_total" in key), "its series end")
        file.write_text("no list", encoding="utf-8")
        wait_for(lambda: "must be a list of at least one MODEL@ALIAS" in server.log.read_text("utf-8"), "the error is logged")
        assert list(listed(server)) == [FIRST, OTHER_ALIAS]
        write(OTHER_ALIAS, TOWNS)
        wait_for(lambda: server.predict(FLAT).json.get("version") == "2", "another model is the first")
        wait_for(lambda: server.ask(f"/models/{TOWNS}/model").status == 200, "the model is back")


def test_a_model_has_the_limits_of_the_file(models_home: Path, tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"

    def write(max_rows: int, max_body: int) -> None:
        text = f"- {{name: {FIRST}, max_rows: {max_rows}, max_body: {max_body}}}\n- {OTHER_ALIAS}\n"
        (tmp_path / "new").write_text(text, encoding="utf-8")
        (tmp_path / "new").rename(file)

    rows = json.dumps({"instances": [FLAT] * 3}).encode()
    tensors = [{"name": name, "shape": [3], "datatype": "BYTES", "data": [value] * 3} for name, value in FLAT.items()]
    for tensor, datatype in zip(tensors, ("FP64", "INT64", "BOOL", "BYTES", "INT64"), strict=True):
        tensor["datatype"] = datatype
    write(2, 10_000)
    with serving_models(models_home, str(file), f"serve.release_dir={tmp_path}/serving", "serve.max_body=20000") as server:
        for route in ("/predict", f"/models/{FIRST}/predict", "/models/housing-rentals/invocations"):
            assert_problem(server.ask(route, rows), 413, r"at most 2 rows \(got 3\)")
            assert server.ask(route, json.dumps({"instances": [FLAT] * 2}).encode()).status == 200
        inferred = server.ask(f"/v2/models/{FIRST}/infer", json.dumps({"inputs": tensors}).encode())
        assert (inferred.status, inferred.json["error"]) == (413, "The request must have at most 2 rows (got 3).")
        assert server.ask(f"/models/{OTHER_ALIAS}/predict", rows).status == 200
        write(3, len(rows) - 1)
        wait_for(lambda: "bytes" in server.ask("/predict", rows).text, "the limits have changed")
        compressed = server.ask("/predict", gzip.compress(rows), Content_Encoding="gzip")
        for answer in (server.ask(f"/models/{FIRST}/explain", rows), compressed):
            assert_problem(
                answer, 413, rf"at most {len(rows) - 1} bytes \(max_body of this model in the file of serve\.models\)\.$"
            )
        too_long = server.ask(f"/models/{OTHER_ALIAS}/predict", b" " * 20_001)
        assert_problem(too_long, 413, r"at most 20000 bytes \(serve\.max_body\)\.$")
        assert server.ask(f"/models/{OTHER_ALIAS}/predict", rows).status == 200


def test_models_leave_a_full_memory_and_come_back(models_home: Path) -> None:
    limits = (f"serve.release_dir={models_home}/full", "serve.max_memory_mb=1")
    with serving_models(models_home, f"[{','.join(NAMES)}]", *limits) as server:
        wait_for(lambda: all(model["version"] for model in listed(server).values()), "all models are published")
        wait_for(lambda: sum(model["in_memory"] for model in listed(server).values()) == 2, "one model has left")
        for name in (OTHER_ALIAS, TOWNS, OTHER_ALIAS, TOWNS):
            version = listed(server)[name]["version"]
            body = BODY if name == OTHER_ALIAS else example(server, TOWNS)
            assert server.ask(f"/models/{name}/predict", body).json["version"] == version
            wait_for(
                lambda wanted=name: {key for key, model in listed(server).items() if model["in_memory"]} == {FIRST, wanted},  # type: ignore[misc]
                "only the first and the last model are in memory",
            )
        assert server.predict(FLAT).json["version"] == "1"
        counted = scraped(server)[f'housing_rows_total{{name="{OTHER_ALIAS}",version="2"}}']
        assert counted == 2  # also after the model has left


@pytest.mark.parametrize(
    "models", ["housing-rentals", "a@b,a@b", "a/b@c", "a@b,", "missing.yaml", "@staging", "a@b@c d"], ids=lambda models: models
)
def test_an_invalid_list_is_refused(models: str, tmp_path: Path) -> None:
    settings = config("serve", "data=rentals", f"serve.release_dir={tmp_path}").serve
    environ = server_environment({**settings, "models": models})
    with pytest.raises((ConfigError, FileNotFoundError), match=r"MODEL@ALIAS|missing\.yaml"):
        Settings.from_environment(environ).list_models()
