"""No request fails while versions change, workers are replaced, or the server stops."""

import signal
import time
from functools import partial
from pathlib import Path

import pytest

from housing.server_files.rotating_file import PREDICTIONS, iter_lines, list_files
from housing.tracking import store as tracking
from tests.support.endurance import Load
from tests.support.server import serving
from tests.support.tables import FLAT, config, train
from tests.support.waiting import wait_for


def _all_say(load: Load, version: int) -> bool:
    return {reply.version for reply in load.replies[-50:]} == {version}


@pytest.mark.long
def test_no_request_fails_while_versions_change_and_workers_are_replaced(home: Path) -> None:
    runs = [str(train(home, "model=linear", "figures=false", *options).run_id) for options in ((), ("max_rows=300",))]
    store = tracking.connect(config("train", "data=rentals").mlflow)
    for run in runs:
        store.registry.register("housing-rentals", run)
    store.registry.set_alias("housing-rentals", "staging", "1")
    with serving(home) as running:
        wait_for(lambda: running.answers("/readyz"), "version 1 is served")
        predictions = {1: running.predict(FLAT).json["predictions"][0]}
        with Load(running.url, FLAT).running() as load:
            for version in (2, 1, 2):
                store.registry.set_alias("housing-rentals", "staging", str(version))
                wait_for(partial(_all_say, load, version), f"all workers serve version {version}")
            before = set(running.workers())
            running.process.send_signal(signal.SIGHUP)
            wait_for(lambda: len(running.workers()) == len(before) and not before & set(running.workers()), "new workers")
            result = time.perf_counter()
            wait_for(lambda: load.replies[-1].started > result, "they answer")
        predictions[2] = running.predict(FLAT).json["predictions"][0]
    assert not load.failed
    assert predictions[1] != predictions[2]
    assert all(reply.prediction == predictions[reply.version] for reply in load.replies)


def test_no_request_fails_during_a_shutdown_and_all_are_logged(served_home: Path) -> None:
    with serving(served_home, "serve.drain_seconds=3") as running:
        wait_for(lambda: running.answers("/readyz"), "the model is published")
        with Load(running.url, FLAT).running() as load:
            wait_for(lambda: len(load.replies) > 100, "clients are at work")
            running.process.terminate()
            wait_for(lambda: running.ask("/readyz").status == 503, "no more requests are wanted", 2)
            result = time.perf_counter()
            wait_for(lambda: load.replies[-1].started > result + 0.5, "they go on for a while")
        assert running.process.wait(30) == 0
    assert not load.failed
    logged = [
        line for path in list_files(served_home / "serving" / "rentals-staging.log", PREDICTIONS) for line in iter_lines(path)
    ]
    assert len(logged) == len(load.replies)
