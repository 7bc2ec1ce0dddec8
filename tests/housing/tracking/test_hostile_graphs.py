"""A hostile graph in MLflow's store: every command that loads a model rejects it before an engine reads it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.housing.bundle.test_bundle import rewrite_checksums
from tests.support.commands import command
from tests.support.hostile_graphs import endless, graph
from tests.support.promotions import (
    MODEL,
    TABLE,
    at_home,
    bundle_directory,
    create_promotable_home,
    open_store,
    run_promote,
)

REFUSAL = "members/0/model.onnx: The ONNX graph has the operator 'Loop' of 'ai.onnx'; allowed operators: Add, Cast"


@dataclass(frozen=True)
class HostileStore:
    """A home whose version 1 at staging is an endless loop, with the run of version 1 and a better run."""

    home: Path
    run_id: str
    better_run_id: str


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileStore]:
    """A hostile store with valid checksums."""
    home = tmp_path_factory.mktemp("hostile")
    create_promotable_home(home)
    store = open_store(home)
    run_id = store.registry.run_of_version(MODEL, "1")
    runs = store.client.api.search_runs([store.client.experiment_id("rentals")])
    (better,) = {run.info.run_id for run in runs} - {run_id}
    bundle = bundle_directory(store, run_id)
    graph([endless()])(bundle)
    rewrite_checksums(bundle)
    with at_home(home):
        yield HostileStore(home, run_id, better)


@pytest.mark.parametrize("name", ["predict", "doctor", "report", "promote"])
def test_each_command_that_loads_a_model_rejects_the_graph(hostile: HostileStore, name: str) -> None:
    arguments = {
        "predict": [f"file={hostile.home}/data/rentals.csv", f"out={hostile.home}/predictions.csv"],
        "doctor": [],
        "report": [f"run_id={hostile.run_id}"],
        "promote": [f"run_id={hostile.run_id}", "force=true", "force_reason=hurry"],
    }[name]
    result = command(hostile.home, f"housing.{name}", *TABLE, *arguments)
    assert result.code == 1
    assert REFUSAL in " ".join((result.out + result.err).split()) and "Traceback" not in result.err


def test_a_reproduction_refits_the_run_without_reading_its_graph(hostile: HostileStore) -> None:
    assert command(hostile.home, "housing.reproduce", *TABLE, f"run_id={hostile.run_id}").code == 0


def test_a_hostile_version_is_only_replaced_by_force_and_never_restored(hostile: HostileStore) -> None:
    challenge = (f"run_id={hostile.better_run_id}",)
    held = run_promote(hostile.home, *challenge)
    assert held.out.startswith("HOLD") and REFUSAL in " ".join(held.out.split())
    assert run_promote(hostile.home, *challenge, "force=true", "force_reason=version 1 is hostile").code == 0
    result = command(hostile.home, "housing.rollback", *TABLE)
    assert result.code == 1 and "Could not roll back; staging is unchanged: version 1 is unusable" in result.err
    assert REFUSAL in result.err
