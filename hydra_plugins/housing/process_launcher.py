"""Process launcher: runs jobs side by side in separate processes, so that a crash fails only its own job."""

import atexit
import multiprocessing
import os
import resource
import signal
import threading
from concurrent.futures import Future, TimeoutError  # pylint: disable=redefined-builtin
from typing import Any

from pebble import ProcessExpired, ProcessPool

from housing.sweeps import job_process
from housing.sweeps.attempts import RetryingLauncher, require_valid

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class ProcessLauncher(RetryingLauncher):
    """Run jobs on a pool of spawned processes that later batches reuse.

    A job fails, or is retried, if its process dies (crash, signal, out of memory) or exceeds the time limit. The launcher
    then records the outcome. Jobs times threads equal the number of cores, unless OMP_NUM_THREADS sets the threads of a job.
    """

    def __init__(self, n_jobs: int, timeout_seconds: float | None, retries: int, memory_gb: float | None) -> None:
        super().__init__(retries)
        require_valid("n_jobs", n_jobs, isinstance(n_jobs, int) and n_jobs >= 1, "a whole number, at least 1")
        require_valid(
            "timeout_seconds",
            timeout_seconds,
            timeout_seconds is None or timeout_seconds > 0,
            "a number of seconds above 0, or null",
        )
        require_valid("memory_gb", memory_gb, memory_gb is None or memory_gb > 0, "a number of gigabytes above 0, or null")
        self.n_jobs, self.timeout_seconds, self.memory_gb = n_jobs, timeout_seconds, memory_gb
        self._pool: ProcessPool | None = None
        self._lock = threading.Lock()  # a search launches from several threads

    def capacity(self) -> int:
        """Return a queued job for each process, so that none idles."""
        return 2 * self.n_jobs

    def schedule(self, shared: bytes, job: bytes) -> "Future[Any]":
        """Run a job in a process of the pool."""
        future: Future[Any] = self._get_pool().schedule(job_process.run, (shared, job), timeout=self.timeout_seconds)
        return future

    def crash_reason(self, error: Exception) -> str | None:
        """Return how the process of a job ended."""
        if isinstance(error, TimeoutError):
            return f"The job exceeded its time limit of {self.timeout_seconds:g} s."
        return f"The job's process {_describe_exit(error.exitcode)}." if isinstance(error, ProcessExpired) else None

    def stop(self) -> None:
        """End all processes at once."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()  # type: ignore[no-untyped-call]  # of pebble
            pool.join()

    def _get_pool(self) -> ProcessPool:
        with self._lock:
            if self._pool is None:
                share = max(1, len(os.sched_getaffinity(0)) // self.n_jobs)
                threads = os.environ.get(THREAD_VARIABLES[0]) or str(share)
                for name in THREAD_VARIABLES:  # before the processes import the libraries that read them
                    os.environ.setdefault(name, threads)
                context: Any = multiprocessing.get_context("spawn")
                self._pool = ProcessPool(self.n_jobs, initializer=_init_worker, initargs=(self.memory_gb,), context=context)
                atexit.register(self.stop)
            return self._pool


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def _init_worker(memory_gb: float | None) -> None:
    """Prepare a process: limit its memory, and import what the first job needs."""
    if memory_gb is not None:
        limit = int(memory_gb * 1e9)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    job_process.import_libraries()
