"""Slurm launcher: runs the jobs of a sweep on a Slurm cluster, so that a crash fails only its own job.

A Slurm job runs one job of the sweep, or several (`runs_per_job`), so that imports are paid once for all of them.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf

from hydra_plugins.housing.process_launcher import ProcessLauncher

try:
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf, SlurmQueueConf  # type: ignore[import-untyped]
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher as SubmititLauncher  # type: ignore[import-untyped]
except ImportError:  # the extra `slurm` is not installed; Hydra imports this file at each start
    SubmititLauncher = Launcher
else:  # submitit's own class of options takes no others
    ConfigStore.instance().store(
        group="hydra/launcher",
        name="slurm_options",
        node={**cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(SlurmQueueConf))), "runs_per_job": 1},
        provider="housing",
    )

POLL_SECONDS = 5.0  # between calls of squeue
RESULT_DELAY = 60.0  # seconds until a result written on a node is visible on this machine
MAX_ARRAY_SIZE = 1001  # Slurm's default of its option MaxArraySize
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


class _Run(NamedTuple):
    """A job of the sweep: a run with a number and overrides."""

    number: int
    overrides: list[str]


Result = tuple[int, Any]  # of a run: its status, and its value or the text of its error


@dataclass
class _SubmittedJob:
    """A job that was submitted to Slurm, with its runs."""

    runs: list[_Run]
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

    def __init__(self, runs_per_job: int = 1, **params: Any) -> None:
        super().__init__(**params)
        if not isinstance(runs_per_job, int) or runs_per_job < 1:
            raise HydraException(f"hydra.launcher.runs_per_job must be a whole number, at least 1 (got {runs_per_job!r}).")
        self.runs_per_job = runs_per_job
        self._active: dict[str, _SubmittedJob] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the submitted jobs when the launcher is pickled for a job."""
        return {**self.__dict__, "_active": {}}

    def __call__(self, runs: Sequence[_Run], singleton_state: Any) -> list[Result]:
        """Run the runs of one Slurm job on its node, and return their results in order.

        Several runs have a process beside this one. If a run kills it, the next run gets a new one.
        """
        if len(runs) > 1:
            return self._run_several(runs, singleton_state)
        run = runs[0]
        call = super().__call__  # pylint: disable=no-member  # of submitit's launcher
        result = call(run.overrides, "hydra.sweep.dir", run.number, "", singleton_state)
        value = result._return_value  # pylint: disable=protected-access  # the public attribute raises the error
        return [(result.status.value, value if result.status == JobStatus.COMPLETED else f"{type(value).__name__}: {value}")]

    def _run_several(self, runs: Sequence[_Run], singleton_state: Any) -> list[Result]:
        from hydra.core.singleton import Singleton  # pylint: disable=import-outside-toplevel

        Singleton.set_state(singleton_state)
        launcher = ProcessLauncher(n_jobs=1, timeout_seconds=None, retries=0, memory_gb=None)
        launcher.setup(hydra_context=self.hydra_context, task_function=self.task_function, config=self.config)
        results = launcher.launch([run.overrides for run in runs], initial_job_idx=runs[0].number)
        launcher.stop()
        values = [result._return_value for result in results]  # pylint: disable=protected-access
        return [
            (result.status.value, str(value) if isinstance(value, HydraException) else value)
            for result, value in zip(results, values, strict=True)
        ]

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs and return their results in order. More than fit into an array of Slurm are submitted one array at a time."""
        runs = [_Run(number, list(overrides)) for number, overrides in enumerate(job_overrides, start=initial_job_idx)]
        chunks = _split(runs, self.runs_per_job)
        arrays = _split(chunks, _max_array_size() - 1) if len(chunks) > 1 else [chunks]
        return [result for array in arrays for result in self._launch_array(array)]

    def _launch_array(self, chunks: Sequence[Sequence[_Run]]) -> list[JobReturn]:
        jobs = self._submit(chunks)
        self._active |= {job.id: job for job in jobs}
        try:
            _wait(jobs)
        except BaseException:
            self.stop()
            raise
        for job in jobs:
            self._active.pop(job.id, None)
        return [result for job in jobs for result in _collect(job)]

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

    def _submit(self, chunks: Sequence[Sequence[_Run]]) -> list[_SubmittedJob]:
        import submitit  # pylint: disable=import-outside-toplevel  # Hydra imports this file at each start
        from hydra.core.singleton import Singleton  # pylint: disable=import-outside-toplevel

        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        options = dict(self.params)
        executor = submitit.AutoExecutor(
            options.pop("submitit_folder"), cluster="slurm", slurm_max_num_timeout=options.pop("max_num_timeout")
        )
        common = set(OmegaConf.structured(BaseQueueConf))
        executor.update_parameters(**{name if name in common else f"slurm_{name}": value for name, value in options.items()})
        jobs = executor.map_array(self, chunks, [Singleton.get_state()] * len(chunks))
        return [_SubmittedJob(list(chunk), job) for chunk, job in zip(chunks, jobs, strict=True)]


def _split(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Split a list into parts of this size, of which the last may be smaller."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def _max_array_size() -> int:
    """Return the option MaxArraySize of this cluster, or Slurm's default if Slurm does not answer."""
    done = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=False)
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, re.MULTILINE)
    return int(found[1]) if found else MAX_ARRAY_SIZE


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


def _collect(submitted: _SubmittedJob) -> list[JobReturn]:
    """Return the results of the runs of a job that has ended."""
    try:
        results = submitted.job.result() if submitted.has_result else str(submitted.state)
    except RuntimeError as error:  # from submitit; only the last line of its traceback names the cause
        results = f"Could not start: {str(error).rpartition(TRACEBACK_RULE)[0].strip().rpartition(chr(10))[2]}"
    if isinstance(results, str):
        _record_outcome(submitted, results, never_started=True)
        return [_job_return(run, (JobStatus.FAILED.value, results)) for run in submitted.runs]
    for run, (status, value) in zip(submitted.runs, results, strict=True):
        if status != JobStatus.COMPLETED.value:
            _record_run(run, value, never_started=True)  # of a run that died in its process
    return [_job_return(run, result) for run, result in zip(submitted.runs, results, strict=True)]


def _job_return(run: _Run, result: Result) -> JobReturn:
    status, value = JobStatus(result[0]), result[1]
    returned = JobReturn(overrides=run.overrides, status=status)
    returned.return_value = value if status == JobStatus.COMPLETED else HydraException(f"job {run.number}: {value}")
    return returned


def _record_outcome(submitted: _SubmittedJob, reason: str, final: bool = True, never_started: bool = False) -> None:
    """Record the outcomes of the runs of a job. See `_record_run`."""
    for run in submitted.runs:
        _record_run(run, reason, final, never_started)


def _record_run(run: _Run, reason: str, final: bool = True, never_started: bool = False) -> None:
    """Record the outcome of a run that could not do so itself; of a run without any outcome only if it never started."""
    from housing.runs.outcome import Outcome  # pylint: disable=import-outside-toplevel  # Hydra imports this file at each start
    from housing.sweeps.sweep import Sweep  # pylint: disable=import-outside-toplevel

    if Sweep.current is None:
        return
    outcome = Outcome.read(Sweep.current.folder / str(run.number))
    if outcome.status == "RUNNING" if outcome else never_started:
        Sweep.current.record_crash(run.number, run.overrides, reason, final)
