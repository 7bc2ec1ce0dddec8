"""Batch prediction over the workers of a Dask cluster, which need no shared disk: they get the files of the bundle."""

# pylint: disable=import-outside-toplevel  # Dask is an optional package

import io
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from housing.bundle.bundle import Bundle
from housing.cluster.connection import ClusterSettings, connected
from housing.core.errors import ClusterError, ConfigError
from housing.data.batch_prediction import PredictionSettings, Predictor, Values, predict_matrix
from housing.schema.column import Matrix
from housing.streaming.settings import DASK, MEMORY

if TYPE_CHECKING:
    from distributed import Client, Future

MAX_SENDS = 3  # of a batch whose workers are lost
BATCHES_PER_WORKER = 2  # one that it predicts, and one that waits there


@contextmanager
def predicts_on_workers(engine: Mapping[str, Any], folder: Path, prediction: PredictionSettings) -> Iterator[Predictor | None]:
    """Connect to the workers of `engine=dask` for the duration of the block, and yield what predicts there; else None.

    A batch whose worker is lost is predicted by another worker.

    Parameters
    ----------
    folder
        Of the bundle. Its files are sent to each worker.

    Raises
    ------
    ConfigError
        If it is another engine, Dask is not installed, or a setting is invalid.
    ClusterError
        If the scheduler does not answer, or has no worker.
    """
    if engine["name"] == MEMORY:
        yield None
        return
    if engine["name"] != DASK:
        raise ConfigError(f"engine must be memory or dask (got {engine['name']!r}). Every engine reads the file in batches.")
    settings = ClusterSettings.from_config(engine, "engine")
    with connected(settings) as client:
        n_workers = len(client.nthreads())
        workers = _PredictionWorkers(client, _pack(folder), prediction)
        yield Predictor(workers.start, n_ahead=BATCHES_PER_WORKER * n_workers)


@dataclass
class _PredictionWorkers:
    client: "Client"
    files: bytes  # of the bundle
    settings: PredictionSettings

    def __post_init__(self) -> None:
        self._archive = self._send()

    def start(self, matrix: Matrix) -> Callable[[], Values]:
        """Send rows to a worker, and return a function that waits for their predictions. Raises ClusterError."""
        return partial(self._wait, self._submit(matrix), matrix)

    def _send(self) -> "Future":
        """Send the files of the bundle to the workers that are there now. Others get them from these."""
        [archive] = self.client.scatter([self.files], broadcast=True, hash=False)
        return archive

    def _submit(self, matrix: Matrix) -> "Future":
        arguments = self._archive, matrix, self.settings.coverage, self.settings.quantiles
        return self.client.submit(_predict_with, *arguments, pure=False)

    def _wait(self, future: "Future", matrix: Matrix) -> Values:
        """Return the predictions of a batch. Dask starts it again with another worker if its own is lost."""
        from distributed import CancelledError, KilledWorker

        address = self.client.scheduler.address
        for _ in range(MAX_SENDS):
            try:
                values: Values = future.result()
                return values
            except CancelledError:  # all workers that had the files are lost, or the scheduler is
                future = self._submit_again(matrix, address)
            except KilledWorker:
                break
        raise ClusterError(
            f"A batch of {len(matrix):,} rows was lost with several workers in turn, and nothing was written. Look into"
            f" their logs. If they ran out of memory, start larger ones: dask worker {address} --nthreads 1"
        )

    def _submit_again(self, matrix: Matrix, address: str) -> "Future":
        """Send the files to the workers again, if need be, and then the rows. Raises ClusterError without the scheduler."""
        from distributed import CancelledError

        try:
            if self.client.status == "running":
                if self._archive.status != "finished":
                    self._archive = self._send()
                return self._submit(matrix)
        except (OSError, CancelledError):
            pass  # the scheduler is lost, as the error says
        raise ClusterError(
            f"The connection to the Dask scheduler at {address} was lost, and nothing was written."
            " Start it and its workers. Then run the same command again."
        )


def _pack(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(folder, arcname=".")
    return buffer.getvalue()


def _predict_with(archive: bytes, matrix: Matrix, coverage: float | None, quantiles: tuple[float, ...]) -> Values:
    """Predict rows on a worker, with the bundle in an archive."""
    return predict_matrix(_read_bundle(archive), matrix, coverage, quantiles)


@lru_cache(maxsize=1)  # a worker has the same archive for all batches
def _read_bundle(archive: bytes) -> Bundle:
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        packed.extractall(folder, filter="data")
        return Bundle.read(Path(folder))
