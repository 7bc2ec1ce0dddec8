"""The shadow of a running server: it counts each logged row once, follows its alias, and survives kills."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from grafana.generate import DASHBOARD_DIR
from housing.bundle.bundle import Bundle
from housing.core.environment import PROJECT
from housing.server_files.rotating_file import PREDICTIONS, list_files
from housing.tracking import store as tracking
from housing.tracking.store import Store
from housing.traffic.shadow_state import MAX_VERSIONS, SERIES, STATE_FILE, ShadowState, Totals
from tests.support.commands import command, user_error
from tests.support.feedback import log_dir, predict_areas, send_labels
from tests.support.server import Server, children_running, promoted, scraped, serving
from tests.support.tables import FLAT, TABLES, config, train
from tests.support.waiting import wait_for

pytestmark = pytest.mark.long

MODEL = "housing-rentals"
Areas = list[float]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Path]:
    """A home whose staging is version 1; production is the linear version 2, and version 3 is another one."""
    directory = promoted(tmp_path_factory.mktemp("shadow"), "rentals", empty_store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOUSING_HOME", str(directory))
        for model in ("linear", "decision_tree"):
            run = train(directory, f"model={model}", "figures=false", "interval=none")
            store().registry.register(MODEL, str(run.run_id))
        store().registry.set_alias(MODEL, "production", "2")
        yield directory


def store() -> Store:
    """Return the store of the home."""
    return tracking.connect(config("serve", "data=rentals").mlflow)


def series(server: Server, version: str) -> dict[str, float]:
    """Return the shadow's metrics of a version, by their names in the totals."""
    metrics = scraped(server)
    names = [item.name for item in fields(Totals)]
    return {name: metrics.get(f'{key}{{version="{version}"}}', -1.0) for name, key in zip(names, SERIES, strict=True)}


def predict(version: str, areas: Areas) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Return what the bundle of a version predicts for flats of these areas."""
    with store().artifacts.bundle(f"models:/{MODEL}/{version}") as folder:
        bundle = Bundle.read(folder)
        return bundle.predict(bundle.schema.encode_records([{**FLAT, "area": area} for area in areas]))


def shadow_pid(server: Server) -> int:
    """Return the pid of the shadow, or 0 while there is none."""
    return next(iter(children_running(server.process.pid, "housing.traffic.shadow")), 0)


def test_rows_and_true_values_are_counted_once_through_kills_and_moves_of_the_alias(home: Path) -> None:
    areas: Areas = [30.0, 60.0, 90.0]
    with serving(home, "serve.shadow=production") as server:
        wait_for(lambda: server.answers("/readyz"), "the model is published")
        wait_for(lambda: series(server, "2")["rows"] == 0, "the shadow predicts with version 2")
        answer = predict_areas(server, areas)
        labels = [{"request_id": answer["request_id"], "row": row, "value": 500.0 + row} for row in range(2)]
        send_labels(server, labels)
        wait_for(lambda: (series(server, "2")["rows"], series(server, "2")["labels"]) == (3, 2), "all rows are counted")
        first = series(server, "2")
        difference = predict("2", areas) - answer["predictions"]
        assert first["sum_abs_difference"] == pytest.approx(abs(difference).sum())
        assert first["sum_squared_difference"] == pytest.approx(np.square(difference).sum())
        actual = np.array([500.0, 501.0])
        assert first["sum_squared_error"] == pytest.approx(np.square(predict("2", areas[:2]) - actual).sum())
        assert first["sum_squared_answer_error"] == pytest.approx(np.square(answer["predictions"][:2] - actual).sum())
        assert (first["refused"], first["cpu_seconds"] > 0) == (0, True)

        os.kill(shadow_pid(server), signal.SIGKILL)
        predict_areas(server, areas)
        wait_for(lambda: series(server, "2")["rows"] == 6, "the restarted shadow reads what it has missed")
        with list_files(log_dir(home), PREDICTIONS)[0].open("ab") as file:
            file.write(b"damaged\n")
        wait_for(lambda: scraped(server)["housing_shadow_malformed_lines_total"] == 1, "the damaged line is counted")

        store().registry.set_alias(MODEL, "production", "3")
        wait_for(lambda: series(server, "3")["rows"] == 0, "the shadow follows its alias")
        answer = predict_areas(server, areas)
        wait_for(lambda: series(server, "3")["rows"] == 3, "the rows are predicted with version 3")
        difference = predict("3", areas) - answer["predictions"]
        assert series(server, "3")["sum_abs_difference"] == pytest.approx(abs(difference).sum())
        assert series(server, "2")["rows"] == 6
        assert scraped(server)["housing_shadow_unread_bytes"] == 0
        assert scraped(server)["housing_shadow_versions_published_total"] == 2
        assert scraped(server)["housing_versions_published_total"] == 1  # the served version
        named = re.findall(r"housing_shadow_\w+", (DASHBOARD_DIR / "candidate.json").read_text(encoding="utf-8"))
        assert named and set(named) <= {name.partition("{")[0] for name in scraped(server)}
        assert os.getpriority(os.PRIO_PROCESS, shadow_pid(server)) == 19
    state = json.loads((log_dir(home) / STATE_FILE).read_text(encoding="utf-8"))
    assert state["totals"]["2"]["rows"] == 6


def test_a_server_without_a_shadow_has_no_process_and_no_metric_of_it(home: Path) -> None:
    with serving(home) as server:
        wait_for(lambda: server.answers("/readyz"), "the model is published")
        assert shadow_pid(server) == 0
        assert not [name for name in scraped(server) if name.startswith("housing_shadow")]


@pytest.mark.parametrize(
    ("alias", "message"), [("prodution", "Did you mean serve.shadow=production"), ("staging", "must be another alias than")]
)
def test_a_wrong_alias_is_refused(home: Path, alias: str, message: str) -> None:
    done = command(home, "housing.serve", f"--config-dir={TABLES}", "data=rentals", f"serve.shadow={alias}")
    assert message in user_error(done)


def test_totals_of_the_most_recent_versions_stay() -> None:
    state = ShadowState()
    for version in map(str, range(MAX_VERSIONS + 3)):
        state.track(version).rows += 1
    assert list(state.totals) == [str(version) for version in range(3, MAX_VERSIONS + 3)]
    assert state.track("5").rows == 1
    assert list(state.totals)[-1] == "5"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "Expecting value"),
        ("[]", "TypeError"),
        ("{}", "KeyError: 'totals'"),
        ('{"offsets": {}, "totals": {"1": {"x": 1}}, "malformed": 0}', "TypeError: .*'x'"),
    ],
)
def test_a_damaged_state_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / STATE_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        ShadowState.read(tmp_path)


def test_the_state_survives_its_file(tmp_path: Path) -> None:
    assert ShadowState.read(tmp_path) is None
    state = ShadowState({"predictions-0.jsonl": 5}, malformed=2)
    state.track("1").sum_squared_error = 1.5
    state.write(tmp_path)
    assert ShadowState.read(tmp_path) == state


def test_the_shadow_loads_no_library_that_trains() -> None:
    code = "import housing.traffic.shadow, sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert not {"mlflow", "pandas", "sklearn", "xgboost", "hydra", "omegaconf", "scipy"} & set(done.stdout.split())
