"""XGBoost fit over the workers of a Dask cluster, each of which holds a part of the rows."""

# pylint: disable=import-outside-toplevel  # Dask is an optional package, and XGBoost takes seconds to import

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from housing.cluster.connection import ClusterSettings, connected
from housing.core.errors import ClusterError
from housing.data.table import Table
from housing.streaming.column_chunks import ColumnChunks
from housing.streaming.settings import DASK
from housing.streaming.streamed_table import StreamedTable

if TYPE_CHECKING:
    from distributed import Client

    from housing.estimators.round_reporter import RoundReporter
    from housing.estimators.xgboost_chunks import ChunkedRows

# Memory of a worker for the rows that it holds.
BYTES_PER_VALUE = 6  # float32, one byte in the matrix of XGBoost, and the sketch of its quantiles
BYTES_PER_ROW = 40  # target and weight, gradients, prediction and node
LIBRARIES = 250e6  # bytes of a worker without rows
MAX_MEMORY = 0.75  # of a worker's limit: above 0.8 of it, Dask pauses a worker, which begins no further task
MAX_FITS = 3  # a fit is tried so often if workers are lost: later fits would lose theirs for the same reason
RERUN = "Then run the same command again."

log = logging.getLogger(__name__)


@contextmanager
def fits_on_workers(engine: Mapping[str, Any] | None, table: Table) -> Iterator[tuple[Table, Sequence[str]]]:
    """Connect to the workers of `engine=dask` for the duration of the block. With another engine, do nothing.

    Yields the table, whose fits run on the workers, and the addresses of workers that were lost in a fit that was tried again.

    Raises
    ------
    ConfigError
        If Dask is not installed, or a setting is invalid.
    ClusterError
        If the scheduler does not answer, or has no worker.
    """
    if engine is None or engine["name"] != DASK or not isinstance(table, StreamedTable):
        yield table, []
        return
    settings = ClusterSettings.from_config(engine, "engine")
    with connected(settings) as client:
        workers = FitWorkers(client, settings)
        yield replace(table, fit=workers.fit), workers.lost


@dataclass
class FitWorkers:
    """Workers that fit together.

    Attributes
    ----------
    lost
        The addresses of workers that were lost during a fit, which was tried again without them.
    """

    client: "Client"
    settings: ClusterSettings
    lost: list[str] = field(default_factory=list)

    def fit(
        self,
        estimator: Any,
        training: "ChunkedRows",
        validation: "ChunkedRows | None",
        patience: int,
        reporter: "RoundReporter",
    ) -> None:
        """Fit an estimator as `housing.estimators.xgboost_chunks.fit_on_chunks` does. The columns are column chunks.

        If workers are lost, the fit is tried again on the others, and on those that replace them within `timeout_seconds`.

        Raises
        ------
        ClusterError
            If the scheduler is lost, or the workers are too few, too small or lost again and again.
        """
        for n_left in reversed(range(MAX_FITS)):
            workers = self._find_workers()
            _require_memory(workers, [rows for rows in (training, validation) if rows is not None])
            try:
                booster = self._fit_once(list(workers), estimator, training, validation, patience, reporter.report)
            except Exception as error:  # pylint: disable=broad-exception-caught  # of XGBoost, Dask or sockets
                missing = self._missing(workers, error)
                if not missing:
                    raise
                self._report_loss(workers, missing, n_left, error)
            else:
                estimator.load_model(bytearray(booster.save_raw("ubj")))
                return

    def _find_workers(self) -> dict[str, Any]:
        """Return `settings.workers` workers with what the scheduler knows of them, by address; after a loss maybe fewer."""
        number, timeout = self.settings.workers, self.settings.timeout_seconds
        try:
            self.client.wait_for_workers(number, timeout=timeout)
        except TimeoutError:
            log.debug("The scheduler has fewer than %d workers.", number)
        found = self.client.scheduler_info(n_workers=-1)["workers"]
        address = self.client.scheduler.address
        if not found:
            raise ClusterError(
                f"The Dask scheduler at {address} has no worker after {timeout:g} s (lost: {', '.join(self.lost) or 'none'})."
                f" {self.settings.worker_hint(address)} {RERUN}"
            )
        if len(found) < number and not self.lost:
            raise ClusterError(
                f"engine.workers must be at most the number of workers (got {number}; the Dask scheduler at {address} has"
                f" {len(found)} after {timeout:g} s). Start more of them, or set engine.workers={len(found)}."
            )
        by_name = sorted(found.items(), key=lambda item: str(item[1]["name"]))  # XGBoost numbers them in the same order
        return dict(by_name[:number])

    def _fit_once(
        self,
        workers: list[str],
        estimator: Any,
        training: "ChunkedRows",
        validation: "ChunkedRows | None",
        patience: int,
        report: Callable[[int, float | None], None],
    ) -> Any:
        """Send the rows to the workers, and return the booster that they fit."""
        from xgboost import collective, dask

        from housing.estimators.round_reporter import RoundReporter

        topic = f"housing-rounds-{self.client.id}"
        self.client.subscribe_topic(topic, lambda event: report(*event[1]))
        max_bin, evaluations = estimator.max_bin, []
        matrix = dask.DaskQuantileDMatrix(self.client, **self._send(workers, training), max_bin=max_bin)
        if validation is not None:
            held_out = self._send(workers, validation)
            evaluations = [(dask.DaskQuantileDMatrix(self.client, **held_out, max_bin=max_bin, ref=matrix), "validation_0")]
        return dask.train(
            self.client,
            estimator.get_xgb_params(),
            matrix,
            num_boost_round=estimator.get_num_boosting_rounds(),
            callbacks=[RoundReporter(partial(_log_round, topic))],
            evals=evaluations,
            early_stopping_rounds=patience if evaluations else None,
            verbose_eval=False,
            # XGBoost would guess an address of the scheduler's machine, which may be one that workers do not reach
            coll_cfg=collective.Config(tracker_host_ip=urlsplit(self.client.scheduler_info()["address"]).hostname),
        )["booster"]

    def _send(self, workers: list[str], rows: "ChunkedRows") -> dict[str, Any]:
        """Send the chunks to the workers in turn. Return the columns, which the workers compute, and targets as Dask arrays."""
        from dask import array
        from distributed import wait

        chunks: Any = rows.columns
        vectors = {"label": rows.target} if rows.weight is None else {"label": rows.target, "weight": rows.weight}
        sent: dict[str, list[Any]] = {name: [] for name in ("data", *vectors)}
        futures: list[Any] = []
        for number, part in enumerate(chunks.parts()):
            if number >= len(workers):
                wait(futures[number - len(workers)])  # a worker holds one chunk at once whose columns are not computed
            start, n_rows, worker = number * chunks.chunk_rows, len(part.matrix), workers[number % len(workers)]
            values = [vector[start : start + n_rows].astype(np.float32) for vector in vectors.values()]
            rows_sent, *values_sent = self.client.scatter([part, *values], workers=[worker], direct=True, hash=False)
            # Bound to a lost worker, the task would wait for it forever.
            task = self.client.submit(ColumnChunks.compute, rows_sent, workers=[worker], allow_other_workers=True, pure=False)
            futures.append(task)
            sent["data"].append(array.from_delayed(task, (n_rows, chunks.n_columns), np.float32))
            for name, future in zip(vectors, values_sent, strict=True):
                sent[name].append(array.from_delayed(future, (n_rows,), np.float32))
        return {name: array.concatenate(parts) for name, parts in sent.items()}

    def _missing(self, workers: Iterable[str], error: Exception) -> list[str]:
        """Return which workers do not answer. Raises ClusterError if the scheduler does not."""
        try:
            alive = self.client.run(os.getpid, on_error="ignore")
        except Exception as lost:
            address = self.settings.address
            raise ClusterError(
                f"The Dask scheduler at {address} was lost during the fit ({_first_line(error)})."
                f" Start it and its workers. {RERUN}"
            ) from lost
        return sorted(set(workers) - set(alive))

    def _report_loss(self, workers: Iterable[str], missing: list[str], n_left: int, error: Exception) -> None:
        """Log that workers are lost. Raises ClusterError if the fit is not tried again."""
        self.lost += missing
        loss = f"Lost {len(missing)} of {len(list(workers))} workers during the fit: {', '.join(missing)}"
        if not n_left:
            raise ClusterError(
                f"{loss}. The fit was tried {MAX_FITS} times and lost {len(self.lost)} workers in all. Look into their logs;"
                f" if they ran out of memory, start more workers or larger ones. {RERUN}"
            ) from error
        log.warning(
            "%s. Fitting again on the other workers, and those that start within %g s.", loss, self.settings.timeout_seconds
        )


def _require_memory(workers: Mapping[str, Any], parts: Iterable["ChunkedRows"]) -> None:
    """Raise ClusterError if a worker cannot hold its part of the rows."""
    needed = 0.0
    for rows in parts:
        chunks: Any = rows.columns
        n_rows = -(-len(rows.target) // (chunks.chunk_rows * len(workers))) * chunks.chunk_rows  # of the worker with most chunks
        needed += min(n_rows, len(rows.target)) * (BYTES_PER_VALUE * chunks.n_columns + BYTES_PER_ROW)
    for address, info in workers.items():
        free = info["memory_limit"] * MAX_MEMORY - max(LIBRARIES, info["metrics"].get("memory", 0))
        if info["memory_limit"] and needed > free:
            available = f"{max(free, 0) / 1e6:,.0f} MB of {info['memory_limit'] / 1e6:,.0f} at {address}"
            raise ClusterError(
                f"Each of {len(workers)} workers needs {needed / 1e6:,.0f} MB for its part of the rows (got {available})."
                f" Start more workers, or larger ones. {RERUN}"
            )


def _log_round(topic: str, done: int, score: float | None) -> None:
    """Send a round to the client, from one of the workers."""
    from distributed import get_worker
    from xgboost import collective

    if collective.get_rank() == 0:
        get_worker().log_event(topic, [done, None if score is None else float(score)])


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
