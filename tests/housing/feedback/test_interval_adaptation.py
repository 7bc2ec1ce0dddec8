"""Adaptive intervals: a server and its joiner, kills, other runs, models with names, and databases of the previous version."""

import json
import os
import signal
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from housing.bundle.adaptation import Adaptation, adaptation_path
from housing.bundle.bundle import Bundle
from housing.feedback import database
from housing.feedback.database import DATABASE_FILE, FeedbackDatabase
from housing.feedback.error_totals import DUPLICATES
from housing.feedback.joiner import Joiner
from housing.server_files.request_id import make_id_generator
from housing.serving.publishing import publish, publish_canary
from server.metrics.model_metrics import ModelMetrics
from server.models.served_models import ServedModels
from tests.support.feedback import append, predict_areas, send_labels
from tests.support.monitoring import metric, monitor_settings
from tests.support.server import Server, children_running, model_list, scraped, serving
from tests.support.tables import FLAT
from tests.support.waiting import wait_for

AREAS = [30.0 + 5 * index for index in range(20)]
RISE = 1.5  # of all true values
LABELS_METRIC_NAME = "housing_adaptive_interval_labels"
LABELS_METRIC = f'{LABELS_METRIC_NAME}{{version="1"}}'
WIDTH_METRIC = 'housing_adaptive_interval_width_ratio{version="1"}'
MODEL = "/v2/models/housing-rentals"


def send_risen_values(server: Server, n_requests: int) -> int:
    """Predict flats and send higher true values. Return how many."""
    for _ in range(n_requests):
        answer = predict_areas(server, AREAS)
        labels = [
            {"request_id": answer["request_id"], "row": row, "value": RISE * value}
            for row, value in enumerate(answer["predictions"])
        ]
        send_labels(server, labels)
    return n_requests * len(AREAS)


def n_labels(server: Server) -> float:
    """Return the number of labels from which the intervals follow."""
    return scraped(server).get(LABELS_METRIC, 0.0)


def infer_parameters(server: Server) -> dict[str, Any]:
    """Return the parameters of a response of the inference protocol with an interval."""
    described = server.ask(MODEL).json["inputs"]
    inputs = [{**tensor, "shape": [1], "data": [FLAT[tensor["name"]]]} for tensor in described]
    answer = server.ask(f"{MODEL}/infer", json.dumps({"inputs": inputs, "parameters": {"interval": 0.9}}).encode())
    assert answer.status == 200, answer
    return dict(answer.json["parameters"])


@pytest.mark.long
def test_intervals_follow_feedback_through_kills_and_a_restart(served_home: Path) -> None:
    adaptive = "serve.adaptive_intervals=true"
    with serving(served_home, adaptive) as server:
        wait_for(lambda: server.answers("/readyz"), "the model is published")
        before = predict_areas(server, AREAS, 0.9)
        assert "adapted_labels" not in before
        sent = send_risen_values(server, 10)
        wait_for(lambda: n_labels(server) == sent, "all labels are learned")
        for _ in range(3):
            (pid,) = children_running(server.process.pid, "housing.feedback.joiner")
            sent += send_risen_values(server, 2)
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: len(children_running(server.process.pid, "housing.feedback.joiner")) == 1, "a joiner runs again")
        wait_for(lambda: scraped(server)['housing_feedback_matched_total{version="1"}'] == sent, "all labels are counted")
        wait_for(lambda: n_labels(server) == sent, "each label is learned once")
        wait_for(lambda: predict_areas(server, AREAS, 0.9).get("adapted_labels") == sent, "the workers have the latest file")
        after = predict_areas(server, AREAS, 0.9)
        risen = RISE * np.array(after["predictions"])
        assert np.mean(risen <= before["upper"]) < 0.5
        assert np.mean((after["lower"] <= risen) & (risen <= after["upper"])) > 0.8
        assert after["predictions"] == before["predictions"]
        assert "adapted_labels" not in predict_areas(server, AREAS)
        wait_for(lambda: infer_parameters(server).get("adapted_labels") == sent, "the other protocol says so, too")
        assert scraped(server)[WIDTH_METRIC] != 1.0
    with serving(served_home, adaptive) as server:
        wait_for(lambda: server.answers("/readyz"), "the model is published")
        assert predict_areas(server, AREAS, 0.9)["upper"] == after["upper"]
    with serving(served_home) as server:
        wait_for(lambda: server.answers("/readyz"), "the model is published")
        assert predict_areas(server, AREAS, 0.9)["upper"] == before["upper"]  # off by default


def new_joiner(folder: Path, bundle: Bundle, **settings: str) -> Joiner:
    """Publish a bundle as version 1, and return a joiner that adapts its intervals."""
    return Joiner(monitor_settings(folder, bundle, ADAPTIVE_INTERVALS="true", **settings), folder / "metrics")


def log_labels(folder: Path, bundle: Bundle, n_rows: int, **origin: str) -> list[dict[str, Any]]:
    """Append requests with one row each, and true values above all intervals, to the log. Return the lines of feedback."""
    next_id, record = make_id_generator(0), bundle.golden["rows"][0]
    prediction = bundle.golden["predictions"][0]
    row = {"columns": list(record), "rows": [list(record.values())], "predictions": [prediction]}
    labels = []
    for _ in range(n_rows):
        request_id = next_id()
        append(folder / "log", "predictions-0", {"id": request_id, "time": time.time(), "version": "1", **origin, **row})
        label = {"request_id": request_id, "row": 0, "value": 10 * prediction}
        labels.append({"time": time.time(), "feedback": [label]})
    append(folder / "log", "feedback-0", *labels)
    return labels


def test_a_label_that_comes_twice_is_learned_once(tmp_path: Path, bundle: Bundle) -> None:
    joiner = new_joiner(tmp_path, bundle)
    labels = log_labels(tmp_path, bundle, 30, run_id=bundle.card["run_id"])
    joiner.step()
    append(tmp_path / "log", "feedback-0", *labels)
    joiner.step()
    adaptation = Adaptation.read(adaptation_path(tmp_path / "log", "", "1"))
    assert adaptation is not None
    assert adaptation.n_labels == metric(tmp_path, LABELS_METRIC_NAME) == 30
    assert FeedbackDatabase(tmp_path / "log").counts()[DUPLICATES] == 30
    matrix = bundle.schema.encode_records(bundle.golden["rows"])
    upper, adapted = bundle.predict_interval(matrix, 0.8)[2], bundle.adapted(adaptation).predict_interval(matrix, 0.8)[2]
    assert (adapted > upper).all()


def test_labels_of_another_run_with_the_same_version_are_counted_but_not_learned(tmp_path: Path, bundle: Bundle) -> None:
    joiner = new_joiner(tmp_path, bundle)
    log_labels(tmp_path, bundle, 3, run_id="another")
    joiner.step()
    assert FeedbackDatabase(tmp_path / "log").totals()["1"].matched == 3
    assert not adaptation_path(tmp_path / "log", "", "1").exists()


def test_rows_that_the_model_cannot_read_stop_nothing(tmp_path: Path, bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    joiner = new_joiner(tmp_path, bundle)
    broken = replace(bundle, golden={**bundle.golden, "rows": [dict.fromkeys(bundle.golden["rows"][0], "no number")]})
    log_labels(tmp_path, broken, 3, run_id=bundle.card["run_id"])
    joiner.step()
    assert "Intervals of version 1 are not adapted to 3 labels" in caplog.text
    log_labels(tmp_path, bundle, 2, run_id=bundle.card["run_id"])
    joiner.step()
    assert metric(tmp_path, LABELS_METRIC_NAME) == 2


def test_the_state_of_a_version_without_a_release_is_removed(tmp_path: Path, bundle: Bundle) -> None:
    joiner = new_joiner(tmp_path, bundle)
    log_labels(tmp_path, bundle, 3, run_id=bundle.card["run_id"])
    joiner.step()
    path = adaptation_path(tmp_path / "log", "", "1")
    assert path.exists()
    for version in ("2", "3", "4"):  # a publication keeps the previous release
        bundle.write(tmp_path / f"bundle-{version}")
        publish(tmp_path / "releases", version, tmp_path / f"bundle-{version}", {"model": "m", "version": version})
    log_labels(tmp_path, bundle, 1, run_id=bundle.card["run_id"])
    joiner.step()
    assert not path.exists()


def test_a_worker_keeps_its_intervals_if_the_file_is_damaged_or_of_another_run(
    tmp_path: Path, bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    joiner = new_joiner(tmp_path, bundle)
    log_labels(tmp_path, bundle, 60, run_id=bundle.card["run_id"])
    joiner.step()
    path, metrics = adaptation_path(tmp_path / "log", "", "1"), partial(ModelMetrics, tmp_path / "metrics", 0)
    served = ServedModels(model_list(tmp_path / "releases"), 0.02, metrics, adaptation_dir=tmp_path / "log")

    def n_learned() -> int:
        adaptation = served.get().adaptation
        return 0 if adaptation is None else adaptation.n_labels

    assert n_learned() == 60  # from the first request on
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text("{", encoding="utf-8")
    wait_for(lambda: "Intervals of version 1 stay as they are" in caplog.text, "the damage is logged")
    path.write_text(json.dumps({**content, "n_labels": 61}), encoding="utf-8")
    wait_for(lambda: n_learned() == 61, "a whole file is read")
    path.write_text(json.dumps({**content, "n_labels": 62, "run_id": "another"}), encoding="utf-8")
    os.utime(path, ns=(1, 1))
    served_again = ServedModels(model_list(tmp_path / "releases"), 60, metrics, adaptation_dir=tmp_path / "log")
    assert served_again.get().adaptation is None


def test_a_canary_and_the_current_version_have_adaptations_of_their_own(tmp_path: Path, bundle: Bundle) -> None:
    joiner = new_joiner(tmp_path, bundle)
    publish_canary(tmp_path / "releases", "2", tmp_path / "bundle", {"model": "m", "version": "2"}, 0.5)
    log_labels(tmp_path, bundle, 3, run_id=bundle.card["run_id"], version="2")
    joiner.step()
    metrics = partial(ModelMetrics, tmp_path / "metrics", 0)
    served = ServedModels(model_list(tmp_path / "releases"), 60, metrics, adaptation_dir=tmp_path / "log")
    models = {model.info["version"]: model.adaptation for model in served.in_memory()}
    assert models["1"] is None and models["2"] is not None
    assert models["2"].n_labels == 3


@pytest.mark.parametrize("name", ["m@staging", "m@production"])
def test_each_model_of_several_has_a_file_of_its_own(tmp_path: Path, bundle: Bundle, name: str) -> None:
    settings = monitor_settings(tmp_path, bundle, ADAPTIVE_INTERVALS="true", MODELS="m@staging,m@production")
    for model in ("m@staging", "m@production"):
        publish(tmp_path / "releases" / model, "1", tmp_path / "bundle", {"model": "m", "version": "1", "name": model})
    log_labels(tmp_path, bundle, 3, run_id=bundle.card["run_id"], name=name)
    Joiner(settings, tmp_path / "metrics").step()
    assert [path.parent.name for path in (tmp_path / "log").rglob("adaptation-*.json")] == [name]


def test_a_database_of_the_previous_version_keeps_its_counts(tmp_path: Path) -> None:
    feedback = FeedbackDatabase(tmp_path)
    with feedback.transaction():
        feedback.increase(DUPLICATES, 7)
    feedback.close()
    with closing(sqlite3.connect(tmp_path / DATABASE_FILE)) as connection:
        connection.executescript("DROP TABLE adaptations; PRAGMA user_version = 2;")
    assert database.set_aside_if_damaged(tmp_path) is None
    assert FeedbackDatabase(tmp_path).counts()[DUPLICATES] == 7
    assert FeedbackDatabase(tmp_path).adaptations() == {}
