"""The current model of a worker."""

import resource
from functools import partial
from pathlib import Path

import pytest
from flask import Flask

from housing.bundle.bundle import Bundle
from housing.core.errors import BundleError
from housing.schema.column import Matrix, Vector
from housing.server_files import releases
from housing.server_files.signatures import NO_KEYS
from housing.serving import publishing
from server.api.explanation import explanation_blueprint
from server.metrics.model_metrics import ModelMetrics
from server.models.current_model import CurrentModel, Model
from server.models.served_models import ServedModels
from tests.support.server import model_list
from tests.support.signing_keys import new_key, sign, trusted
from tests.support.tables import FLAT
from tests.support.waiting import wait_for


def test_a_failing_version_keeps_the_current_model_and_the_next_is_loaded(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def counts_of(folder: Path, bundle_: Bundle, version: str, name: str) -> ModelMetrics:
        if version == "2":
            raise TypeError("only numbers are counted")
        return ModelMetrics(tmp_path, 0, folder, bundle_, version, name)

    publish = partial(_publish, bundle, tmp_path)
    publish("1")
    in_use = ServedModels(model_list(tmp_path / "published"), 0.05, counts_of)
    publish("2")
    wait_for(lambda: "TypeError: only numbers are counted" in caplog.text, "version 2 fails")
    assert in_use.get().release["version"] == "1"
    publish("3")
    wait_for(lambda: in_use.get().release["version"] == "3", "version 3 is loaded")


def test_a_temporarily_unreadable_version_is_loaded_later(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _publish(bundle, tmp_path, "1")
    listed = model_list(tmp_path / "published")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # as where a worker has as many connections as it may have files
    try:
        in_use = ServedModels(listed, 60, partial(ModelMetrics, tmp_path, 0))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "Too many open files" in caplog.text
    assert in_use.get().release["version"] == "1"


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_an_unreadable_link_is_logged_once_and_a_model_that_is_published_later_is_served(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    link = tmp_path / "published" / releases.CURRENT
    link.parent.mkdir()
    if kind == "file":
        link.touch()
    else:
        link.mkdir()
    in_use = ServedModels(model_list(link.parent), 0.01, partial(ModelMetrics, tmp_path, 0))
    for _ in range(5):
        with pytest.raises(BundleError, match="release folder cannot be read"):
            in_use.get()
    assert caplog.text.count("Cannot read") == 1
    if kind == "file":
        link.unlink()
    else:
        link.rmdir()
    _publish(bundle, tmp_path, "1")
    wait_for(lambda: in_use.get().release["version"] == "1", "the model is loaded")


def test_republishing_a_version_repairs_its_damaged_copy(bundle: Bundle, tmp_path: Path) -> None:
    for version in ("1", "2"):
        _publish(bundle, tmp_path, version)
    (tmp_path / "published" / "1" / releases.BUNDLE / "card.json").write_text("damaged", encoding="utf-8")
    publishing.publish(tmp_path / "published", "1", tmp_path / "1", {"model": "m", "version": "1"})
    in_use = ServedModels(model_list(tmp_path / "published"), 60, partial(ModelMetrics, tmp_path, 0))
    assert in_use.get().release["version"] == "1"


def test_a_canary_answers_its_share_until_it_is_over_and_a_damaged_one_answers_nothing(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _publish(bundle, tmp_path, "1")
    folder = tmp_path / "published"
    in_use = ServedModels(model_list(folder), 0.05, partial(ModelMetrics, tmp_path, 0))

    def answering(choice: str) -> str:
        return str(in_use.get(choice=choice).info["version"])

    publishing.publish_canary(folder, "2", tmp_path / "1", {"model": "m", "version": "2"}, 0.5)
    wait_for(lambda: in_use.describe()[0]["canary"] == {"version": "2", "share": 0.5}, "the canary is loaded")
    choices = [f"{number}" for number in range(100)]
    first = [answering(choice) for choice in choices]
    assert set(first) == {"1", "2"} and first == [answering(choice) for choice in choices]
    assert in_use.get().info["version"] == "1"  # the routes without a choice
    files = (folder / "2").stat().st_ino
    publishing.publish_canary(folder, "2", tmp_path / "1", {"model": "m", "version": "2"}, 0.25)
    wait_for(lambda: in_use.describe()[0]["canary"] == {"version": "2", "share": 0.25}, "the share has changed")
    assert (folder / "2").stat().st_ino == files  # workers read them
    _publish(bundle, tmp_path, "3")
    assert (folder / "2").is_dir()  # a publication keeps the canary's files
    for text in ("", "[]", '{"release": 1, "share": 0.5}'):
        (folder / releases.CANARY_FILE).write_text(text, encoding="utf-8")
        assert releases.canary_release(folder) is None
    wait_for(lambda: {answering(choice) for choice in choices} == {"3"}, "there is no canary if its file is damaged")
    publishing.set_canary(folder, "2", 0.5)
    wait_for(lambda: in_use.describe()[0]["canary"] is not None, "the file is whole again")
    publishing.remove_canary(folder)
    wait_for(lambda: {answering(choice) for choice in choices} == {"3"}, "the canary is over")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    publishing.publish_canary(folder, "4", damaged, {"model": "m", "version": "4"}, 0.5)
    wait_for(lambda: "Rejected the canary; the current model stays" in caplog.text, "the damaged canary is tried")
    assert {answering(choice) for choice in choices} == {"3"}


def test_a_model_leaves_memory_with_its_canary_and_both_come_back(bundle: Bundle, tmp_path: Path) -> None:
    _publish(bundle, tmp_path, "1")
    folder = tmp_path / "published"
    publishing.publish_canary(folder, "2", tmp_path / "1", {"model": "m", "version": "2"}, 0.5)
    current = CurrentModel(folder, partial(Model.read, partial(ModelMetrics, tmp_path, 0), NO_KEYS, "m"))

    def in_memory() -> list[bool]:
        return [holder.model is not None for holder in (current, current.canary)]

    current.reload_if_new()
    assert in_memory() == [True, True]
    current.unload()
    assert in_memory() == [False, False]
    assert {current.get(str(number)).info["version"] for number in range(100)} == {"1", "2"}


def test_a_served_model_keeps_no_graph(bundle: Bundle, tmp_path: Path) -> None:
    _publish(bundle, tmp_path, "1")
    model = ServedModels(model_list(tmp_path / "published"), 60, partial(ModelMetrics, tmp_path, 0)).get()
    assert hasattr(Bundle.read(tmp_path / "1").ensemble.members[0].estimator, "graph")
    assert not hasattr(model.bundle.ensemble.members[0].estimator, "graph")


@pytest.mark.parametrize("route", ["/explain", "/curves"])
def test_batches_are_no_larger_than_the_verified_size(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    sizes, predict = [], Bundle.predict

    def measured(self: Bundle, rows: Matrix) -> Vector:
        sizes.append(len(rows))
        return predict(self, rows)

    monkeypatch.setattr(Bundle, "predict", measured)
    _publish(bundle, tmp_path, "1")
    app = Flask(__name__)
    app.config.update(EXPLAIN_MAX_EXACT_COLUMNS=10, EXPLAIN_SAMPLES=4096)
    app.extensions["models"] = ServedModels(model_list(tmp_path / "published"), 60, partial(ModelMetrics, tmp_path, 0))
    app.register_blueprint(explanation_blueprint)
    answers, largest = [], []
    for most in (10_000, 50):
        sizes.clear()
        app.config["MAX_ROWS"] = most
        answers.append(app.test_client().post(route, json=FLAT).json)
        largest.append(max(sizes))
    assert largest[0] > 50 == largest[1]
    assert answers[0] == answers[1]


def test_a_release_that_no_trusted_key_signed_as_this_model_is_not_loaded(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("model_signing", reason="the extra `sign` is not installed")
    private, public = new_key(tmp_path, "ann")
    bundle.write(tmp_path / "bundle")
    folder, signature = tmp_path / "published", sign(private, tmp_path / "bundle")

    def serve(model: str = "m") -> ServedModels:
        return ServedModels(model_list(folder, model), 0.05, partial(ModelMetrics, tmp_path, 0), 0, trusted(public))

    def publish(version: str, signature: str = signature, signed: str = "1") -> None:
        publishing.publish(folder, version, tmp_path / "bundle", {"model": "m", "version": signed}, signature)

    publish("first")
    in_use = serve()
    assert in_use.get().info["version"] == "1"
    for name, change, reason in (
        ("unsigned", {"signature": ""}, "it is not signed"),
        ("replayed", {"signed": "2"}, "its signature is that of m:1"),
    ):
        publish(name, **change)
        wait_for(lambda why=reason: why in caplog.text, f"the {name} release is tried")  # type: ignore[misc]
        assert in_use.get().info["version"] == "1"
    publishing.publish_canary(folder, "canary", tmp_path / "bundle", {"model": "m", "version": "3"}, 0.5)
    wait_for(lambda: "Rejected the canary" in caplog.text, "the canary is tried")
    assert in_use.describe()[0]["canary"] is None
    publish("again")
    assert serve().get().info["version"] == "1"
    with pytest.raises(BundleError, match="damaged or not trusted"):
        serve("n").get()
    member = folder / "again" / releases.BUNDLE / "members" / "0" / "model.onnx"
    content = member.read_bytes()
    member.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleError, match="damaged or not trusted"):
        serve().get()
    assert "members/0/model.onnx was changed, added or removed after it was signed" in caplog.text


def _publish(bundle: Bundle, directory: Path, version: str) -> None:
    bundle.write(directory / version)
    publishing.publish(directory / "published", version, directory / version, {"model": "m", "version": version})
