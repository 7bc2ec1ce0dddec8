"""Slurm launcher: runs jobs on a Slurm cluster, so that a crash fails only its own job."""

import os
import signal
import subprocess
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf

try:
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf  # type: ignore[import-untyped]
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher as SubmititLauncher  # type: ignore[import-untyped]
except ImportError:  # the extra `slurm` is not installed; Hydra imports this file at each start
    SubmititLauncher = Launcher

POLL_SECONDS = 5.0  # between calls of squeue
RESULT_DELAY = 60.0  # seconds until a result written on a node is visible on this machine
GRACE_SECONDS = 15.0  # for jobs to close their runs when the sweep is interrupted
SQUEUE_FIELDS = ("JobArrayID", "State", "NodeList", "exit_code", "RestartCnt")  # of squeue, which lists ended jobs for a while
FINISHED_STATES = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "TIMEOUT",
)


class _State(NamedTuple):
    """A job's state according to Slurm."""

    name: str
    node: str = ""
    status: int = 0  # in the form of wait(2)
    restarts: int = 0

    def __str__(self) -> str:
        code = os.waitstatus_to_exitcode(self.status)
        signal_number = -code if code < 0 else code - 128
        is_signal = signal_number in set(signal.Signals)
        cause = signal.Signals(signal_number).name if is_signal else f"exit code {code}"
        return f"Slurm reports {self.name}" + (f" on {self.node}" if self.node else "") + (f" ({cause})" if code else "")


TRACEBACK_RULE = 10 * "-"  # ends the traceback in submitit's errors
UNKNOWN = _State("an unknown job")


@dataclass
class _SubmittedJob:
    """A job that was submitted to Slurm."""

    number: int
    overrides: list[str]
    job: Any  # submitit's job
    state: _State | None = None
    ended_at: float | None = None  # monotonic time at which Slurm reported its end

    @property
    def id(self) -> str:
        """Slurm's id of the job."""
        return str(self.job.job_id)

    @property
    def has_result(self) -> bool:
        """Whether the result file exists."""
        return bool(self.job.paths.result_pickle.exists())

    def is_finished(self) -> bool:
        """Return whether the job has a result, or can no longer get one."""
        if self.has_result:
            return True
        is_completed = self.state is not None and self.state.name == "COMPLETED"  # its result becomes visible soon
        delay = RESULT_DELAY if is_completed else 0
        return self.ended_at is not None and time.monotonic() - self.ended_at > delay


class SlurmLauncher(SubmititLauncher):  # type: ignore[misc]  # it has no types  # pylint: disable=abstract-method  # of Launcher alone
    """Submitit's Slurm launcher, extended: it waits for every job, and records the outcome of jobs that died.

    Only squeue is needed, so clusters without accounting work. An interrupt cancels all submitted jobs.
    """

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self._active: dict[str, _SubmittedJob] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the submitted jobs when the launcher is pickled for a job."""
        return {**self.__dict__, "_active": {}}

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs and return their results in order."""
        jobs = self._submit([list(overrides) for overrides in job_overrides], initial_job_idx)
        self._active |= {job.id: job for job in jobs}
        try:
            _wait(jobs)
        except BaseException:
            self.stop()
            raise
        for job in jobs:
            self._active.pop(job.id, None)
        return [_collect(job) for job in jobs]

    def stop(self) -> None:
        """Cancel waiting jobs, interrupt running jobs, and kill those that do not end in time."""
        remaining, self._active = list(self._active.values()), {}
        ids = [job.id for job in remaining]
        if not ids:
            return
        _scancel("--state=PENDING", *ids)
        _scancel("--signal=INT", *ids)
        _wait(remaining, GRACE_SECONDS)
        _scancel(*(job.id for job in remaining if not job.is_finished()))
        for job in remaining:
            _record_outcome(job, "Interrupted. Run the same command again to continue.")

    def _submit(self, job_overrides: list[list[str]], first: int) -> list[_SubmittedJob]:
        import submitit  # pylint: disable=import-outside-toplevel  # Hydra imports this file at each start
        from hydra.core.singleton import Singleton  # pylint: disable=import-outside-toplevel

        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        options = dict(self.params)
        executor = submitit.AutoExecutor(
            options.pop("submitit_folder"), cluster="slurm", slurm_max_num_timeout=options.pop("max_num_timeout")
        )
        common = set(OmegaConf.structured(BaseQueueConf))
        executor.update_parameters(**{name if name in common else f"slurm_{name}": value for name, value in options.items()})
        count, numbers = len(job_overrides), range(first, first + len(job_overrides))
        tasks = (job_overrides, ["hydra.sweep.dir"] * count, numbers, [""] * count, [Singleton.get_state()] * count)
        jobs = executor.map_array(self, *tasks)
        return [
            _SubmittedJob(number, overrides, job) for number, overrides, job in zip(numbers, job_overrides, jobs, strict=True)
        ]


def _wait(jobs: Collection[_SubmittedJob], seconds: float = float("inf")) -> None:
    """Wait until all jobs have ended, or for at most this many seconds."""
    started_at, polled_at = time.monotonic(), 0.0
    while remaining := [job for job in jobs if not job.is_finished()]:
        now = time.monotonic()
        if now - started_at > seconds:
            return
        if now - polled_at > POLL_SECONDS:
            polled_at = now
            _update_states(remaining)
        time.sleep(0.5)


def _update_states(jobs: Collection[_SubmittedJob]) -> None:
    """Update the states of jobs from Slurm."""
    states = _query_states([job.id for job in jobs])
    if states is None:  # Slurm is unavailable; the jobs continue without it
        return
    for job in jobs:
        previous, job.state = job.state, states.get(job.id, UNKNOWN)
        if job.state is UNKNOWN or job.state.name in FINISHED_STATES:
            job.ended_at = job.ended_at or time.monotonic()
        elif previous is not None and job.state.restarts > previous.restarts:
            _record_outcome(job, "Slurm put the job back in the queue.", final=False)


def _query_states(ids: Collection[str]) -> dict[str, _State] | None:
    """Return the states of the jobs that Slurm knows, or None if Slurm does not answer."""
    arrays = ",".join(sorted({name.partition("_")[0] for name in ids}))
    columns = ",".join(f"{field}:|" for field in SQUEUE_FIELDS)
    squeue = ["squeue", "--noheader", "--array", "--states=all", f"--jobs={arrays}", f"--Format={columns}"]
    done = subprocess.run(squeue, capture_output=True, text=True, check=False)
    if done.returncode and "Invalid job id" not in done.stderr:
        return None
    rows = [[field.strip() for field in line.split("|")] for line in done.stdout.splitlines()]
    return {name: _State(state, node, int(status), int(restarts)) for name, state, node, status, restarts, *_ in rows}


def _scancel(*arguments: str) -> None:
    if any(not argument.startswith("-") for argument in arguments):
        subprocess.run(["scancel", "--quiet", *arguments], capture_output=True, check=False)


def _collect(submitted: _SubmittedJob) -> JobReturn:
    """Return the result of a job that has ended."""
    try:
        result = submitted.job.result() if submitted.has_result else str(submitted.state)
    except RuntimeError as error:  # from submitit; only the last line of its traceback names the cause
        result = f"Could not start: {str(error).rpartition(TRACEBACK_RULE)[0].strip().rpartition(chr(10))[2]}"
    if isinstance(result, str):
        _record_outcome(submitted, result, never_started=True)
        return _job_return(submitted, JobStatus.FAILED, HydraException(f"job {submitted.number}: {result}"))
    value = result._return_value  # pylint: disable=protected-access  # the public attribute raises the error
    failed = result.status != JobStatus.COMPLETED
    return _job_return(submitted, result.status, HydraException(f"{type(value).__name__}: {value}") if failed else value)


def _job_return(submitted: _SubmittedJob, status: JobStatus, value: Any) -> JobReturn:
    result = JobReturn(overrides=submitted.overrides, status=status)
    result.return_value = value
    return result


def _record_outcome(submitted: _SubmittedJob, reason: str, final: bool = True, never_started: bool = False) -> None:
    """Record the outcome of a job that could not do so itself; of a job without any outcome only if it never started."""
    from housing.runs.outcome import Outcome  # pylint: disable=import-outside-toplevel  # Hydra imports this file at each start
    from housing.sweeps.sweep import Sweep  # pylint: disable=import-outside-toplevel

    if Sweep.current is None:
        return
    outcome = Outcome.read(Sweep.current.folder / str(submitted.number))
    if outcome.status == "RUNNING" if outcome else never_started:
        Sweep.current.record_crash(submitted.number, submitted.overrides, reason, final)
