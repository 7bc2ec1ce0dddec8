"""Batch prediction over the workers of a Dask cluster."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from housing.bundle.bundle import Bundle
from housing.cluster.connection import ClusterSettings, connected
from housing.cluster.prediction_workers import predicts_on_workers
from housing.core.errors import ClusterError
from housing.data.batch_prediction import PredictedFile, PredictionSettings, predict_file
from housing.data.reading import BATCH_ROWS
from tests.support.commands import command
from tests.support.tables import TABLES, rentals_frame

if TYPE_CHECKING:
    from distributed import Client

N_BATCHES = 8
RENTALS = (f"--config-dir={TABLES}", "data=rentals")


@pytest.fixture(name="client")
def fixture_client() -> "Iterator[Client]":
    """A client of a cluster of two workers."""
    pytest.importorskip("distributed", reason="distributed is not installed: locks/cluster.txt")
    with connected(ClusterSettings(address=None, workers=2, memory_gb=None, timeout_seconds=60)) as client:
        yield client


@pytest.fixture(name="rows")
def fixture_rows(tmp_path: Path) -> Path:
    """A file of some batches."""
    path = tmp_path / "new.csv"
    rentals_frame(N_BATCHES * BATCH_ROWS).drop(columns="rent").to_csv(path, index=False)
    return path


def predict(bundle: Bundle, rows: Path, client: "Client", on_rows: Any = lambda _: None) -> PredictedFile:
    """Predict the rows on the workers of a client, with intervals."""
    engine = {"name": "dask", "address": client.scheduler.address, "workers": 2, "memory_gb": None, "timeout_seconds": 60}
    folder, settings = rows.parent / "bundle", PredictionSettings(rows, rows.parent / "distributed.csv", coverage=0.9)
    folder.mkdir()
    bundle.write(folder)
    with predicts_on_workers(engine, folder, settings) as predictor:
        return predict_file(bundle, settings, on_rows, predictor)


@pytest.mark.long
def test_workers_predict_the_same_and_another_takes_the_batches_of_a_lost_one(
    bundle: Bundle, rows: Path, client: "Client"
) -> None:
    pids = list(client.run(os.getpid).values())
    reported: list[int] = []

    def on_rows(n_rows: int) -> None:
        if not reported:
            os.kill(pids[0], signal.SIGKILL)
        reported.append(n_rows)

    assert predict(bundle, rows, client, on_rows).n_predicted == N_BATCHES * BATCH_ROWS
    assert reported == [BATCH_ROWS * (number + 1) for number in range(N_BATCHES)]
    predict_file(bundle, PredictionSettings(rows, rows.parent / "local.csv", coverage=0.9))
    assert (rows.parent / "distributed.csv").read_bytes() == (rows.parent / "local.csv").read_bytes()


@pytest.mark.long
def test_without_the_scheduler_nothing_is_written(bundle: Bundle, rows: Path, client: "Client") -> None:
    def on_rows(_: int) -> None:
        client.shutdown()

    with pytest.raises(ClusterError, match=r"The connection to the Dask scheduler at tcp://.* was lost, and nothing was written"):
        predict(bundle, rows, client, on_rows)
    assert not (rows.parent / "distributed.csv").exists()


@pytest.mark.long
def test_the_command_predicts_on_workers(served_home: Path, rows: Path) -> None:
    pytest.importorskip("distributed", reason="distributed is not installed: locks/cluster.txt")
    done = command(served_home, "housing.predict", *RENTALS, f"file={rows}", f"out={rows.parent}/out.csv", "engine=dask")
    assert done.code == 0, done.err
    assert f"{N_BATCHES * BATCH_ROWS:,} rows predicted by models:/housing-rentals@staging" in done.out


def test_other_engines_are_refused(served_home: Path, rows: Path) -> None:
    """They would change nothing."""
    done = command(served_home, "housing.predict", *RENTALS, f"file={rows}", f"out={rows.parent}/out.csv", "engine=stream")
    assert done.code == 1
    assert "engine must be memory or dask (got 'stream')" in done.err
