"""Process liveness: runs of dead processes are closed, runs of live ones are not."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from housing.core import processes
from housing.core.processes import HEARTBEAT, HOST, PROCESS
from housing.tracking import store as tracking_store
from housing.tracking import tags as tracking_tags
from housing.tracking.store import Store
from tests.support.waiting import wait_for

OTHER_HOST_TAGS = {HOST: "another", PROCESS: "1 1 another boot"}


@pytest.fixture
def store(home: Path) -> Store:
    """The store of the test's own home."""
    return tracking_store.Store(f"sqlite:///{home}/mlflow.db", artifact_root=f"{home}/mlartifacts", ui="")


@pytest.fixture
def child() -> Iterator["subprocess.Popen[str]"]:
    """Another process that has printed its tags and waits."""
    code = "from housing.core import processes; import json; print(json.dumps(processes.process_tags()), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def heartbeat_minutes_ago(minutes: float) -> str:
    """Return the time of a heartbeat some minutes ago."""
    return (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat(timespec="seconds")


def test_the_pid_and_start_time_decide_about_a_process_of_this_host(child: "subprocess.Popen[str]") -> None:
    assert child.stdout is not None
    tags = json.loads(child.stdout.readline())
    assert not processes.is_dead({**tags, HEARTBEAT: heartbeat_minutes_ago(60)})  # alive, although its heartbeat is old
    pid, start, rest = tags[PROCESS].split(" ", 2)
    assert processes.is_dead({**tags, PROCESS: f"{pid} {int(start) - 1} {rest}"})  # an earlier process with the same pid
    os.kill(child.pid, signal.SIGKILL)
    wait_for(lambda: processes.is_dead(tags), "the killed process counts as dead")  # even as a zombie


@pytest.mark.parametrize(("minutes", "dead"), [(0.0, False), (4.5, False), (5.5, True)])
def test_the_heartbeat_decides_about_a_process_of_another_host(minutes: float, dead: bool) -> None:
    assert processes.is_dead({**OTHER_HOST_TAGS, HEARTBEAT: heartbeat_minutes_ago(minutes)}) is dead


@pytest.mark.parametrize("tags", [{}, {HEARTBEAT: "yesterday"}, {HOST: "another"}])
def test_a_run_without_process_tags_is_not_closed(tags: dict[str, str]) -> None:
    assert not processes.is_dead(tags)


def test_only_runs_of_dead_processes_are_closed(store: Store) -> None:
    own_run = store.runs.open("rentals", "own", {})
    tags = {
        "silent": {**OTHER_HOST_TAGS, HEARTBEAT: heartbeat_minutes_ago(6)},
        "beating": {**OTHER_HOST_TAGS, HEARTBEAT: heartbeat_minutes_ago(1)},
        "foreign": {},
    }
    runs = {
        name: store.client.api.create_run(own_run.experiment_id, tags=run_tags, run_name=name) for name, run_tags in tags.items()
    }
    assert store.runs.close_dead("rentals") == 1
    assert {name: store.runs.get(run.info.run_id).status for name, run in runs.items()} == {
        "silent": "KILLED",
        "beating": "RUNNING",
        "foreign": "RUNNING",
    }
    assert "exited unexpectedly" in store.runs.get(runs["silent"].info.run_id).tags[tracking_tags.ERROR]
    assert store.runs.get(own_run.id).status == "RUNNING"


def test_an_open_run_writes_heartbeats(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "HEARTBEAT_SECONDS", 0.05)
    run = store.runs.open("rentals", "own", {HEARTBEAT: "never"})
    first = store.runs.get(run.id).tags[HEARTBEAT]
    wait_for(lambda: store.runs.get(run.id).tags[HEARTBEAT] > first, "a new heartbeat")
    run.close("FINISHED")
