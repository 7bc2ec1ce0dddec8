"""Jobs on the workers of a Dask cluster, each run at most once: a worker that dies loses its job and says so.

A worker has one thread and its supervisor (Dask's nanny) starts it again after a crash, so a job that ends its process ends no
other job.
"""

# pylint: disable=import-outside-toplevel  # Dask is an optional package

import logging
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from housing.core.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client
    from distributed import Future as DaskFuture


_T = TypeVar("_T")

CONTINUE = "Then run the same command again: finished jobs are reused."


class WorkerLost(Exception):
    """The worker of a job died, or was ended at the time limit. The message says which in a sentence."""


class JobPool:
    """Jobs on the workers of a cluster.

    Dask would run the job of a dead worker again without a word. Here the second call finds the mark of the first one at the
    scheduler and does nothing, and the future of the job raises WorkerLost. A worker calls `prepare` before a job, outside of its
    time limit.

    Attributes
    ----------
    address
        Address of the scheduler.
    """

    def __init__(self, client: "Client", prepare: Callable[[], None], timeout_seconds: float | None) -> None:
        self._client, self._prepare, self._timeout_seconds = client, prepare, timeout_seconds
        self.address: str = client.scheduler.address
        self._futures: dict[str, DaskFuture] = {}

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Call a function on a worker.

        Returns
        -------
        Future
            Its value, or its error. WorkerLost if the worker died; ClusterError if the scheduler was lost.
        """
        key, result = f"housing-job-{uuid4().hex}", Future[Any]()
        future = self._client.submit(
            _run_once, key, self._prepare, self._timeout_seconds, function, *arguments, key=key, pure=False, retries=0
        )
        self._futures[key] = future
        future.add_done_callback(partial(self._settle, key, result))
        return result

    def count_workers(self) -> int:
        """Return the number of jobs that can run at a time. Raises ClusterError if the scheduler was lost."""
        try:
            return sum(self._client.nthreads().values())
        except OSError as error:
            raise self._scheduler_lost() from error

    def require_workers(self, timeout_seconds: float, hint: str) -> None:
        """Wait for a worker if none is left. Raises ClusterError, with a hint, if none comes or the scheduler was lost."""
        try:
            self._client.wait_for_workers(1, timeout=timeout_seconds)
        except TimeoutError as error:
            raise ClusterError(
                f"The Dask scheduler at {self.address} has lost all workers, and no other came within {timeout_seconds:g} s."
                f" {hint} {CONTINUE}"
            ) from error
        except OSError as error:
            raise self._scheduler_lost() from error

    def kill(self) -> None:
        """Drop the jobs that wait, and end the processes of those that run. Their nannies start new ones."""
        if self._client.status != "running":  # the scheduler is lost, and its workers end by themselves
            return
        running = [(worker, key) for worker, keys in self._client.processing().items() for key in keys if key in self._futures]
        self._client.cancel(list(self._futures.values()), force=True)
        logging.getLogger("distributed.scheduler").setLevel(logging.CRITICAL)  # a worker that is ended does not answer
        for worker, key in running:
            self._client.run(_kill_job, key, workers=[worker], on_error="ignore")

    def _settle(self, key: str, result: "Future[Any]", future: "DaskFuture") -> None:
        """Pass the result of Dask's future on, and forget the job."""
        try:
            values = future.result()
            if not values:
                raise WorkerLost
            result.set_result(*values)
        except BaseException as error:  # pylint: disable=broad-exception-caught  # the caller of the future raises it
            result.set_exception(self._translate(key, error))
        self._futures.pop(key, None)

    def _translate(self, key: str, error: BaseException) -> BaseException:
        """Return the error to raise for an error of Dask."""
        from distributed import CancelledError, Event, KilledWorker

        if isinstance(error, CancelledError):
            return self._scheduler_lost()
        if isinstance(error, WorkerLost) and Event(_time_limit(key), client=self._client).is_set():
            return WorkerLost(f"The job exceeded its time limit of {self._timeout_seconds:g} s.")
        if isinstance(error, WorkerLost | KilledWorker):
            return WorkerLost("The job's worker died: a crash, a signal, out of memory, or its machine is gone.")
        return error

    def _scheduler_lost(self) -> ClusterError:
        return ClusterError(
            f"The connection to the Dask scheduler at {self.address} was lost. Start it, and then workers:"
            f" dask scheduler --port {self.address.rpartition(':')[2]}; dask worker {self.address} --nthreads 1. {CONTINUE}"
        )


def _run_once(
    key: str, prepare: Callable[[], None], timeout_seconds: float | None, function: Callable[..., _T], *arguments: Any
) -> tuple[_T] | tuple[()]:
    """Call a function on this worker and return its value, or nothing if a worker that has died began with it."""
    from distributed import Event

    begun = Event(key)
    if begun.is_set():
        return ()
    begun.set()
    prepare()
    if timeout_seconds is None:
        return (function(*arguments),)
    timer = threading.Timer(timeout_seconds, _end_late_job, (Event(_time_limit(key)),))
    timer.daemon = True
    timer.start()
    try:
        return (function(*arguments),)
    finally:
        timer.cancel()


def _time_limit(key: str) -> str:
    return f"{key}-time-limit"


def _end_late_job(exceeded: Any) -> None:
    """End this process, since a thread that runs a job cannot be ended alone."""
    try:
        exceeded.set()
    finally:
        os.kill(os.getpid(), signal.SIGKILL)


def _kill_job(key: str, dask_worker: Any) -> None:
    """End this worker's process if it still runs a job."""
    if key in dask_worker.active_threads.values():
        os.kill(os.getpid(), signal.SIGKILL)
