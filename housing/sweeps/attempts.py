"""Attempts: a launcher's loop over jobs, of which each runs in another process and again if that process dies."""

from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from housing.core.errors import ClusterError

CHECK_SECONDS = 5.0  # interval between two checks that jobs without a result can still end


@dataclass
class Attempt:
    """One attempt to run a job."""

    number: int
    overrides: list[str]
    attempts_left: int  # attempts after this one


class RetryingLauncher(Launcher):
    """Run jobs in other processes. A job whose process dies is started again `retries` times, and its outcome is recorded."""

    def __init__(self, retries: int) -> None:
        require_valid("retries", retries, isinstance(retries, int) and retries >= 0, "a whole number, at least 0")
        self.retries = retries
        self.config: DictConfig
        self.hydra_context: HydraContext
        self.shared: bytes  # by all jobs: the task function, Hydra's context and its global state

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the config, and serialize what all jobs share."""
        self.hydra_context, self.config = hydra_context, config
        self.shared = cloudpickle.dumps((hydra_context, task_function, Singleton.get_state()))

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs and return their results in order."""
        setup_globals()
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        numbered_jobs = enumerate(job_overrides, start=initial_job_idx)
        pending = deque(Attempt(number, list(overrides), self.retries) for number, overrides in numbered_jobs)
        running: dict[Future[Any], Attempt] = {}
        results: dict[int, JobReturn] = {}
        try:
            while pending or running:
                while pending and len(running) < self.capacity():
                    attempt = pending.popleft()
                    running[self._submit(attempt)] = attempt
                done, _ = wait(running, CHECK_SECONDS, FIRST_COMPLETED)
                if not done:
                    self.check()
                for future in done:
                    attempt = running[future]
                    result = self._collect(future, attempt)
                    del running[future]
                    if result is None:
                        pending.appendleft(Attempt(attempt.number, attempt.overrides, attempt.attempts_left - 1))
                    else:
                        results[attempt.number] = result
        except BaseException as error:
            self.stop()
            if not isinstance(error, ClusterError):  # jobs on workers that cannot be reached may still be running
                _record_interrupted(running.values())
            raise
        return [results[number] for number in sorted(results)]

    @abstractmethod
    def capacity(self) -> int:
        """Return how many jobs to submit at a time."""

    @abstractmethod
    def schedule(self, shared: bytes, job: bytes) -> "Future[Any]":
        """Start `job_process.run` with these arguments in another process, and return the future of its result."""

    @abstractmethod
    def crash_reason(self, error: Exception) -> str | None:
        """Return in a sentence why the process of a job died, or None if the error of its future says something else."""

    @abstractmethod
    def stop(self) -> None:
        """End all jobs at once."""

    def check(self) -> None:
        """Raise an error if jobs that were submitted can no longer end."""

    def _submit(self, attempt: Attempt) -> "Future[Any]":
        config = self.hydra_context.config_loader.load_sweep_config(self.config, attempt.overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = attempt.number
        return self.schedule(self.shared, cloudpickle.dumps(config))

    def _collect(self, future: "Future[Any]", attempt: Attempt) -> JobReturn | None:
        """Return the result of a job, or None if it must be retried."""
        try:
            status, value = future.result()
        except Exception as error:  # pylint: disable=broad-exception-caught  # raised again if it is no crash
            reason = self.crash_reason(error)
            if reason is None:
                raise
            return self._handle_crash(attempt, reason)
        return _job_return(attempt, JobStatus(status), value if status == JobStatus.COMPLETED.value else HydraException(value))

    def _handle_crash(self, attempt: Attempt, reason: str) -> JobReturn | None:
        from housing.sweeps.sweep import Sweep  # pylint: disable=import-outside-toplevel  # Hydra imports this file at each start

        will_retry = attempt.attempts_left > 0
        if Sweep.current is not None:
            Sweep.current.record_crash(
                attempt.number, attempt.overrides, reason + (" It is retried." if will_retry else ""), final=not will_retry
            )
        return None if will_retry else _job_return(attempt, JobStatus.FAILED, HydraException(f"job {attempt.number}: {reason}"))


def require_valid(name: str, value: object, is_valid: bool, expected: str) -> None:
    """Raise an error that names an option of the launcher if its value is not valid."""
    if not is_valid:
        raise HydraException(f"hydra.launcher.{name} must be {expected} (got {value!r}).")


def _record_interrupted(attempts: Iterable[Attempt]) -> None:
    """Record the jobs that were running when the sweep was interrupted."""
    from housing.runs.run import INTERRUPTED  # pylint: disable=import-outside-toplevel  # Hydra imports this file at each start
    from housing.sweeps.sweep import Sweep  # pylint: disable=import-outside-toplevel

    if Sweep.current is not None:
        for attempt in attempts:
            if Sweep.current.is_running(attempt.number):
                Sweep.current.record_crash(attempt.number, attempt.overrides, INTERRUPTED, final=True)


def _job_return(attempt: Attempt, status: JobStatus, value: Any) -> JobReturn:
    result = JobReturn(overrides=attempt.overrides, status=status)
    result.return_value = value
    return result
