"""Dask launcher: runs jobs on the workers of a Dask cluster, on this machine or on many."""

import atexit
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any

from hydra.errors import HydraException

from housing.cluster.connection import ClusterSettings, connected
from housing.cluster.jobs import JobPool, WorkerLost
from housing.core.config import SWEEP_RUN
from housing.core.environment import HOME_VARIABLE
from housing.core.errors import ConfigError
from housing.core.validators import POSITIVE, optional
from housing.sweeps import job_process
from housing.sweeps.attempts import RetryingLauncher, require_valid

SHARED_VARIABLES = (SWEEP_RUN, HOME_VARIABLE, "MLFLOW_TRACKING_URI")  # that a job reads; keys stay in each worker's environment


class DaskLauncher(RetryingLauncher):
    """Run jobs on the workers of a Dask cluster, one at a time on each.

    A job fails, or is retried on another worker, if its worker dies (crash, signal, out of memory, a machine that is gone) or
    exceeds the time limit. The launcher then records the outcome.
    """

    def __init__(
        self,
        address: str | None,
        workers: int,
        memory_gb: float | None,
        connect_timeout_seconds: float,
        timeout_seconds: float | None,
        retries: int,
        cluster: Mapping[str, Any] | None,
    ) -> None:
        super().__init__(retries)
        for name, value, validator in (
            ("connect_timeout_seconds", connect_timeout_seconds, POSITIVE),
            ("timeout_seconds", timeout_seconds, optional(POSITIVE)),
        ):
            require_valid(name, value, validator.is_valid(value), validator.description)
        node = {"address": address, "workers": workers, "memory_gb": memory_gb, "timeout_seconds": connect_timeout_seconds}
        try:
            self._settings = ClusterSettings.from_config({**node, "cluster": cluster}, "hydra.launcher")
        except ConfigError as error:
            raise HydraException(str(error)) from error
        self.timeout_seconds = timeout_seconds
        self._jobs: JobPool | None = None
        self._connection = ExitStack()
        self._lock = threading.Lock()  # a search launches from several threads

    def capacity(self) -> int:
        """Return a job for each worker. Workers may come and go."""
        return max(1, self._get_jobs().count_workers())

    def schedule(self, shared: bytes, job: bytes) -> "Future[Any]":
        """Run a job on a worker."""
        environment = {name: os.environ[name] for name in SHARED_VARIABLES if name in os.environ}
        return self._get_jobs().submit(
            job_process.run_on_worker, environment, os.getcwd(), self.config.hydra.sweep.dir, shared, job
        )

    def crash_reason(self, error: Exception) -> str | None:
        """Return why a worker died."""
        return str(error) if isinstance(error, WorkerLost) else None

    def check(self) -> None:
        """Raise ClusterError if all workers are gone and none comes back in time."""
        jobs = self._get_jobs()
        jobs.require_workers(self._settings.timeout_seconds, self._settings.worker_hint(jobs.address))

    def stop(self) -> None:
        """End the jobs on all workers, and a cluster that this launcher started."""
        with self._lock:
            jobs, self._jobs = self._jobs, None
            connection, self._connection = self._connection, ExitStack()
        if jobs is not None:
            jobs.kill()
            connection.close()

    def _get_jobs(self) -> JobPool:
        with self._lock:
            if self._jobs is None:
                client = self._connection.enter_context(connected(self._settings))
                self._jobs = JobPool(client, job_process.import_libraries, self.timeout_seconds)
                atexit.register(self.stop)
            return self._jobs
