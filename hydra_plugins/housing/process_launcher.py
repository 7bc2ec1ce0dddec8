"""A launcher whose jobs run side by side in processes of their own, and fail alone."""

import atexit
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, TimeoutError, wait  # pylint: disable=redefined-builtin
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cloudpickle
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict
from pebble import ProcessExpired, ProcessPool

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass
class _Attempt:
    number: int
    overrides: list[str]
    attempts_left: int  # attempts after this one


class ProcessLauncher(Launcher):
    """Runs jobs on a pool of spawned processes, which stays for later batches.

    A job whose process dies (a crash, a signal, no memory left) or is out of time fails, or is begun again; what it was
    doing is written down for it. Jobs times threads fit the cores, unless the environment says otherwise.
    """

    def __init__(self, n_jobs: int, timeout_seconds: float | None, retries: int, memory_gb: float | None) -> None:
        _require_valid("n_jobs", n_jobs, isinstance(n_jobs, int) and n_jobs >= 1, "1 and more")
        _require_valid(
            "timeout_seconds", timeout_seconds, timeout_seconds is None or timeout_seconds > 0, "seconds above 0, or null"
        )
        _require_valid("retries", retries, isinstance(retries, int) and retries >= 0, "0 and more")
        _require_valid("memory_gb", memory_gb, memory_gb is None or memory_gb > 0, "gigabytes above 0, or null")
        self.n_jobs, self.timeout_seconds, self.retries, self.memory_gb = n_jobs, timeout_seconds, retries, memory_gb
        self._pool: ProcessPool | None = None
        self._lock = threading.Lock()  # a search launches from several threads
        self.config: DictConfig
        self.hydra_context: HydraContext
        self.shared: bytes  # by all jobs: what they call, and Hydra's context

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives."""
        self.hydra_context, self.config = hydra_context, config
        self.shared = cloudpickle.dumps((hydra_context, task_function))

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs, and give what came of each in their order."""
        setup_globals()
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        todo = [_Attempt(initial_job_idx + place, list(asked), self.retries) for place, asked in enumerate(job_overrides)]
        todo.reverse()
        running: dict[Future[Any], _Attempt] = {}
        results: dict[int, JobReturn] = {}
        try:
            while todo or running:
                while todo and len(running) < 2 * self.n_jobs:  # one more for each process waits at hand
                    attempt = todo.pop()
                    running[self._submit(attempt)] = attempt
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    attempt = running.pop(future)
                    result = self._collect(future, attempt)
                    if result is None:
                        todo.append(_Attempt(attempt.number, attempt.overrides, attempt.attempts_left - 1))
                    else:
                        results[attempt.number] = result
        except BaseException:
            self.stop()
            raise
        return [results[number] for number in sorted(results)]

    def stop(self) -> None:
        """End all processes, whatever they are doing."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()  # type: ignore[no-untyped-call]  # of pebble
            pool.join()

    def _submit(self, attempt: _Attempt) -> "Future[Any]":
        config = self.hydra_context.config_loader.load_sweep_config(self.config, attempt.overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = attempt.number
        package = (self.shared, cloudpickle.dumps(config))
        future: Future[Any] = self._get_pool().schedule(_run_job, package, timeout=self.timeout_seconds)
        return future

    def _get_pool(self) -> ProcessPool:
        with self._lock:
            if self._pool is None:
                threads = max(1, len(os.sched_getaffinity(0)) // self.n_jobs)
                for name in THREAD_VARIABLES:  # before the processes import what reads them
                    os.environ.setdefault(name, str(threads))
                context: Any = multiprocessing.get_context("spawn")
                state = cloudpickle.dumps(Singleton.get_state())
                self._pool = ProcessPool(self.n_jobs, initializer=_init_worker, initargs=(state, self.memory_gb), context=context)
                atexit.register(self.stop)
            return self._pool

    def _collect(self, future: "Future[Any]", attempt: _Attempt) -> JobReturn | None:
        """Give what came of a job, or None where it is to be begun again."""
        try:
            status, value = future.result()
        except TimeoutError:
            return self._handle_crash(attempt, f"ended after {self.timeout_seconds:g} s, the time limit of a job")
        except ProcessExpired as error:
            return self._handle_crash(attempt, f"its process {_describe_exit(error.exitcode)}")
        return _job_return(attempt, JobStatus(status), value if status == JobStatus.COMPLETED.value else HydraException(value))

    def _handle_crash(self, attempt: _Attempt, reason: str) -> JobReturn | None:
        from housing.sweeps.sweep import Sweep  # pylint: disable=import-outside-toplevel  # Hydra imports this file at each start

        will_retry = attempt.attempts_left > 0
        if Sweep.current is not None:
            Sweep.current.record_crash(
                attempt.number, attempt.overrides, reason + ("; begun again" if will_retry else ""), final=not will_retry
            )
        return None if will_retry else _job_return(attempt, JobStatus.FAILED, HydraException(f"job {attempt.number}: {reason}"))


def _require_valid(name: str, value: object, is_valid: bool, allowed: str) -> None:
    if not is_valid:
        raise HydraException(f"hydra.launcher.{name} is {value!r}; allowed: {allowed}")


def _job_return(attempt: _Attempt, status: JobStatus, value: Any) -> JobReturn:
    ended = JobReturn(overrides=attempt.overrides, status=status)
    ended.return_value = value
    return ended


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (" (was memory short?)" if name == "SIGKILL" else "")


def _init_worker(state: bytes, memory_gb: float | None) -> None:
    """Make a process ready, so that its first job need not wait for imports."""
    Singleton.set_state(cloudpickle.loads(state))
    setup_globals()
    if memory_gb is not None:
        ceiling = int(memory_gb * 1e9)
        resource.setrlimit(resource.RLIMIT_DATA, (ceiling, ceiling))
    import housing.runs.run  # pylint: disable=import-outside-toplevel,unused-import  # noqa: F401


_load_shared = lru_cache(maxsize=1)(cloudpickle.loads)  # read by each process once


def _run_job(shared: bytes, own: bytes) -> tuple[int, Any]:
    """Run one job, and give its status with its value or the words of its error: not every error can be pickled."""
    (hydra_context, task_function), config = _load_shared(shared), cloudpickle.loads(own)
    result = run_job(
        hydra_context=hydra_context,
        task_function=task_function,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    value = result._return_value  # pylint: disable=protected-access  # the public name raises it
    return result.status.value, value if result.status == JobStatus.COMPLETED else f"{type(value).__name__}: {value}"
