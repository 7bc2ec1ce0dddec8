"""Process launcher: runs jobs side by side in separate processes, so that a crash fails only its own job."""

import atexit
import multiprocessing
import os
import resource
import signal
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, TimeoutError, wait  # pylint: disable=redefined-builtin
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cloudpickle
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict
from pebble import ProcessExpired, ProcessPool

from hydra_plugins.housing.job import run_pickled_job

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass
class _Attempt:
    number: int
    overrides: list[str]
    attempts_left: int  # attempts after this one


class ProcessLauncher(Launcher):
    """Run jobs on a pool of spawned processes that later batches reuse.

    A job fails, or is retried, if its process dies (crash, signal, out of memory) or exceeds the time limit. The launcher
    then records the outcome. Jobs times threads equal the number of cores, unless the environment sets the threads.
    """

    def __init__(self, n_jobs: int, timeout_seconds: float | None, retries: int, memory_gb: float | None) -> None:
        _require_valid("n_jobs", n_jobs, isinstance(n_jobs, int) and n_jobs >= 1, "a whole number, at least 1")
        _require_valid(
            "timeout_seconds",
            timeout_seconds,
            timeout_seconds is None or timeout_seconds > 0,
            "a number of seconds above 0, or null",
        )
        _require_valid("retries", retries, isinstance(retries, int) and retries >= 0, "a whole number, at least 0")
        _require_valid("memory_gb", memory_gb, memory_gb is None or memory_gb > 0, "a number of gigabytes above 0, or null")
        self.n_jobs, self.timeout_seconds, self.retries, self.memory_gb = n_jobs, timeout_seconds, retries, memory_gb
        self._pool: ProcessPool | None = None
        self._lock = threading.Lock()  # a search launches from several threads
        self.config: DictConfig
        self.hydra_context: HydraContext
        self.shared: bytes  # shared by all jobs: the task function and Hydra's context

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the config, and serialize what all jobs share."""
        self.hydra_context, self.config = hydra_context, config
        self.shared = cloudpickle.dumps((hydra_context, task_function))

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs and return their results in order."""
        setup_globals()
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        numbered_jobs = enumerate(job_overrides, start=initial_job_idx)
        pending = deque(_Attempt(number, list(overrides), self.retries) for number, overrides in numbered_jobs)
        running: dict[Future[Any], _Attempt] = {}
        results: dict[int, JobReturn] = {}
        try:
            while pending or running:
                while pending and len(running) < 2 * self.n_jobs:  # a queued job for each process, so that none idles
                    attempt = pending.popleft()
                    running[self._submit(attempt)] = attempt
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    attempt = running.pop(future)
                    result = self._collect(future, attempt)
                    if result is None:
                        pending.appendleft(_Attempt(attempt.number, attempt.overrides, attempt.attempts_left - 1))
                    else:
                        results[attempt.number] = result
        except BaseException:
            self.stop()
            raise
        return [results[number] for number in sorted(results)]

    def stop(self) -> None:
        """End all processes at once."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()  # type: ignore[no-untyped-call]  # of pebble
            pool.join()

    def _submit(self, attempt: _Attempt) -> "Future[Any]":
        config = self.hydra_context.config_loader.load_sweep_config(self.config, attempt.overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = attempt.number
        arguments = (self.shared, cloudpickle.dumps(config))
        future: Future[Any] = self._get_pool().schedule(_run_job, arguments, timeout=self.timeout_seconds)
        return future

    def _get_pool(self) -> ProcessPool:
        with self._lock:
            if self._pool is None:
                threads = max(1, len(os.sched_getaffinity(0)) // self.n_jobs)
                for name in THREAD_VARIABLES:  # before the processes import the libraries that read them
                    os.environ.setdefault(name, str(threads))
                context: Any = multiprocessing.get_context("spawn")
                state = cloudpickle.dumps(Singleton.get_state())
                self._pool = ProcessPool(self.n_jobs, initializer=_init_worker, initargs=(state, self.memory_gb), context=context)
                atexit.register(self.stop)
            return self._pool

    def _collect(self, future: "Future[Any]", attempt: _Attempt) -> JobReturn | None:
        """Return the result of a job, or None if it must be retried."""
        try:
            status, value = future.result()
        except TimeoutError:
            return self._handle_crash(attempt, f"The job exceeded its time limit of {self.timeout_seconds:g} s.")
        except ProcessExpired as error:
            return self._handle_crash(attempt, f"The job's process {_describe_exit(error.exitcode)}.")
        return _job_return(attempt, JobStatus(status), value if status == JobStatus.COMPLETED.value else HydraException(value))

    def _handle_crash(self, attempt: _Attempt, reason: str) -> JobReturn | None:
        from housing.sweeps.sweep import Sweep  # pylint: disable=import-outside-toplevel  # Hydra imports this file at each start

        will_retry = attempt.attempts_left > 0
        if Sweep.current is not None:
            Sweep.current.record_crash(
                attempt.number, attempt.overrides, reason + (" It is retried." if will_retry else ""), final=not will_retry
            )
        return None if will_retry else _job_return(attempt, JobStatus.FAILED, HydraException(f"job {attempt.number}: {reason}"))


def _require_valid(name: str, value: object, is_valid: bool, expected: str) -> None:
    if not is_valid:
        raise HydraException(f"hydra.launcher.{name} must be {expected} (got {value!r}).")


def _job_return(attempt: _Attempt, status: JobStatus, value: Any) -> JobReturn:
    result = JobReturn(overrides=attempt.overrides, status=status)
    result.return_value = value
    return result


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def _init_worker(state: bytes, memory_gb: float | None) -> None:
    """Prepare a process: limit its memory, and import what the first job needs."""
    Singleton.set_state(cloudpickle.loads(state))
    setup_globals()
    if memory_gb is not None:
        limit = int(memory_gb * 1e9)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    import housing.runs.run  # pylint: disable=import-outside-toplevel,unused-import  # noqa: F401


_load_shared = lru_cache(maxsize=1)(cloudpickle.loads)  # each process loads it once


def _run_job(shared: bytes, job: bytes) -> tuple[int, Any]:
    """Run one job and return its status with its value or error message: not every error can be pickled."""
    hydra_context, task_function = _load_shared(shared)
    result = run_pickled_job(hydra_context, task_function, job)
    value = result._return_value  # pylint: disable=protected-access  # the public attribute raises the error
    return result.status.value, value if result.status == JobStatus.COMPLETED else f"{type(value).__name__}: {value}"
