"""A launcher whose jobs run on a Slurm cluster, and fail alone."""

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
except ImportError:  # without the extra `slurm`; Hydra imports this file at each start
    SubmititLauncher = Launcher

POLL_SECONDS = 5.0  # seconds from one question to Slurm to the next
RESULT_DELAY = 60.0  # seconds for a result to be seen here that was written on a node
GRACE_SECONDS = 15.0  # seconds for jobs to close what they have open, when the sweep is interrupted
SQUEUE_FIELDS = ("JobArrayID", "State", "NodeList", "exit_code", "RestartCnt")  # of squeue, which knows of ended jobs for a while
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
    """What Slurm says of a job."""

    name: str
    node: str = ""
    status: int = 0  # as wait(2) gives it
    restarts: int = 0

    def __str__(self) -> str:
        code = os.waitstatus_to_exitcode(self.status)
        number = -code if code < 0 else code - 128  # of a signal
        how = signal.Signals(number).name if number in set(signal.Signals) else f"exit code {code}"
        return f"Slurm says {self.name}" + (f" on {self.node}" if self.node else "") + (f" ({how})" if code else "")


TRACEBACK_RULE = 10 * "-"  # below a traceback in submitit's errors
UNKNOWN = _State("that it knows the job no more")


@dataclass
class _SubmittedJob:
    """A job that Slurm has."""

    number: int
    overrides: list[str]
    job: Any  # of submitit
    state: _State | None = None
    ended_at: float | None = None  # when it was seen to have ended

    @property
    def id(self) -> str:
        """Slurm's name for it."""
        return str(self.job.job_id)

    @property
    def has_result(self) -> bool:
        """Whether its result is there."""
        return bool(self.job.paths.result_pickle.exists())

    def is_finished(self) -> bool:
        """Whether nothing more will come of it."""
        if self.has_result:
            return True
        late = self.state is not None and self.state.name == "COMPLETED"  # so its result is on its way
        return self.ended_at is not None and time.monotonic() - self.ended_at > (RESULT_DELAY if late else 0)


class SlurmLauncher(SubmititLauncher):  # type: ignore[misc]  # it has no types  # pylint: disable=abstract-method  # of Launcher alone
    """The published launcher, which waits here for every job, and writes down for one that died what it cannot any more.

    It asks squeue, so that clusters without accounting will do. An interrupt ends the jobs that it has submitted.
    """

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self._active: dict[str, _SubmittedJob] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Travel to the jobs without the jobs."""
        return {**self.__dict__, "_live": {}}

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs, and give what came of each in their order."""
        jobs = self._submit([list(overrides) for overrides in job_overrides], initial_job_idx)
        self._active |= {one.id: one for one in jobs}
        try:
            _wait(jobs)
        except BaseException:
            self.stop()
            raise
        for job in jobs:
            self._active.pop(job.id, None)
        return [_collect(one) for one in jobs]

    def stop(self) -> None:
        """Cancel what waits, interrupt what runs, and end what does not end by itself."""
        remaining, self._active = list(self._active.values()), {}
        ids = [one.id for one in remaining]
        if not ids:
            return
        _scancel("--state=PENDING", *ids)
        _scancel("--signal=INT", *ids)
        _wait(remaining, GRACE_SECONDS)
        _scancel(*(one.id for one in remaining if not one.is_finished()))
        for job in remaining:
            _record_outcome(job, "interrupted; the same command goes on from here")

    def _submit(self, job_overrides: list[list[str]], first: int) -> list[_SubmittedJob]:
        import submitit  # pylint: disable=import-outside-toplevel  # Hydra imports this file at each start
        from hydra.core.singleton import Singleton  # pylint: disable=import-outside-toplevel

        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        options = dict(self.params)
        executor = submitit.AutoExecutor(
            options.pop("submitit_folder"), cluster="slurm", slurm_max_num_timeout=options.pop("max_num_timeout")
        )
        common = set(OmegaConf.structured(BaseQueueConf))
        executor.update_parameters(**{name if name in common else f"slurm_{name}": it for name, it in options.items()})
        count, numbers = len(job_overrides), range(first, first + len(job_overrides))
        tasks = (job_overrides, ["hydra.sweep.dir"] * count, numbers, [""] * count, [Singleton.get_state()] * count)
        jobs = executor.map_array(self, *tasks)
        return [
            _SubmittedJob(number, overrides, job) for number, overrides, job in zip(numbers, job_overrides, jobs, strict=True)
        ]


def _wait(jobs: Collection[_SubmittedJob], seconds: float = float("inf")) -> None:
    """Wait until all jobs are over, or the time is."""
    started_at, polled_at = time.monotonic(), 0.0
    while remaining := [one for one in jobs if not one.is_finished()]:
        now = time.monotonic()
        if now - started_at > seconds:
            return
        if now - polled_at > POLL_SECONDS:
            polled_at = now
            _update_states(remaining)
        time.sleep(0.5)


def _update_states(jobs: Collection[_SubmittedJob]) -> None:
    """Ask Slurm what became of jobs."""
    states = _query_states([one.id for one in jobs])
    if states is None:  # Slurm is away; the jobs go on without it
        return
    for job in jobs:
        previous, job.state = job.state, states.get(job.id, UNKNOWN)
        if job.state is UNKNOWN or job.state.name in FINISHED_STATES:
            job.ended_at = job.ended_at or time.monotonic()
        elif previous is not None and job.state.restarts > previous.restarts:
            _record_outcome(job, "Slurm has put it back in the queue", final=False)


def _query_states(ids: Collection[str]) -> dict[str, _State] | None:
    """Give what Slurm says of jobs it knows, or None where it says nothing."""
    arrays = ",".join(sorted({name.partition("_")[0] for name in ids}))
    columns = ",".join(f"{field}:|" for field in SQUEUE_FIELDS)
    squeue = ["squeue", "--noheader", "--array", "--states=all", f"--jobs={arrays}", f"--Format={columns}"]
    done = subprocess.run(squeue, capture_output=True, text=True, check=False)
    if done.returncode and "Invalid job id" not in done.stderr:
        return None
    rows = [[word.strip() for word in line.split("|")] for line in done.stdout.splitlines()]
    return {name: _State(state, node, int(status), int(restarts)) for name, state, node, status, restarts, *_ in rows}


def _scancel(*arguments: str) -> None:
    if any(not argument.startswith("-") for argument in arguments):
        subprocess.run(["scancel", "--quiet", *arguments], capture_output=True, check=False)


def _collect(submitted: _SubmittedJob) -> JobReturn:
    """Give what came of a job that is over."""
    try:
        result = submitted.job.result() if submitted.has_result else str(submitted.state)
    except RuntimeError as error:  # of submitit; all but its last line is where in submitit it was
        result = f"could not be begun: {str(error).rpartition(TRACEBACK_RULE)[0].strip().rpartition(chr(10))[2]}"
    if isinstance(result, str):
        _record_outcome(submitted, result, never_started=True)
        return _job_return(submitted, JobStatus.FAILED, HydraException(f"job {submitted.number}: {result}"))
    value = result._return_value  # pylint: disable=protected-access  # the public name raises it
    failed = result.status != JobStatus.COMPLETED
    return _job_return(submitted, result.status, HydraException(f"{type(value).__name__}: {value}") if failed else value)


def _job_return(submitted: _SubmittedJob, status: JobStatus, value: Any) -> JobReturn:
    ended = JobReturn(overrides=submitted.overrides, status=status)
    ended.return_value = value
    return ended


def _record_outcome(submitted: _SubmittedJob, reason: str, final: bool = True, never_started: bool = False) -> None:
    """See that a job that could not say how it ended has it written down; one that left nothing only where `unbegun`."""
    from housing.runs.outcome import Outcome  # pylint: disable=import-outside-toplevel  # Hydra imports this file at each start
    from housing.sweeps.sweep import Sweep  # pylint: disable=import-outside-toplevel

    if Sweep.current is None:
        return
    outcome = Outcome.read(Sweep.current.folder / str(submitted.number))
    if outcome.status == "RUNNING" if outcome else never_started:
        Sweep.current.record_crash(submitted.number, submitted.overrides, reason, final)
