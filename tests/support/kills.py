"""Interrupt a sweep of six jobs, run the same command again, and count losses: scripts/bench kills prints the table."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import yaml

from housing.bundle.bundle import Bundle
from housing.core.errors import BundleError
from housing.tracking import store as tracking
from housing.tracking.store import Store
from tests.hydra_plugins.test_process_launcher import QUICK, SLOW, jobs, running, runs
from tests.support.commands import command
from tests.support.tables import rentals_frame
from tests.support.waiting import wait_for

JOBS = 6


SWEEP = (*SLOW, "hydra/launcher=processes")


@dataclass(frozen=True)
class Losses:
    """Jobs that were lost or run twice, half-written files and reused jobs, after the same command ran again."""

    lost: int = 0
    twice: int = 0
    half_written: int = 0
    reused: int = 0

    def __add__(self, other: "Losses") -> "Losses":
        return Losses(*(left + right for left, right in zip(astuple(self), astuple(other), strict=True)))


def kill_a_job(_sweep: int, home: Path) -> None:
    """Kill the process of a running job."""
    os.kill(int(running(home)[0].worker.split()[-1]), signal.SIGKILL)


def kill_the_parent(sweep: int, _home: Path) -> None:
    """Kill the command itself. Its worker processes continue."""
    os.kill(sweep, signal.SIGKILL)


def interrupt(sweep: int, _home: Path) -> None:
    """Interrupt the whole process group, as a terminal does at Ctrl-C."""
    os.killpg(sweep, signal.SIGINT)


KILLS = {"kill -9 of one of 6 jobs": kill_a_job, "kill -9 of the parent": kill_the_parent, "Ctrl-C": interrupt}


def cut(home: Path, store: Store, kill: Callable[[int, Path], None]) -> Losses:
    """Start a sweep, interrupt it while one job is finished and another runs, and repeat it immediately."""
    environ = {**os.environ, "HOUSING_HOME": str(home)}
    silent: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-m", *SWEEP], env=environ, start_new_session=True, **silent) as sweep:
        wait_for(lambda: bool(finished(store)) and bool(running(home)), "a job has finished, another is running")
        kill(sweep.pid, home)
    assert sweep.returncode != 0
    repeated = command(home, *SWEEP)
    assert repeated.code == 0, repeated.out + repeated.err
    finished_seeds = Counter(finished(store))
    return Losses(
        lost=JOBS - len(finished_seeds),
        twice=finished_seeds.total() - len(finished_seeds),
        half_written=len(half_written(home)),
        reused=sum(job["reused"] for job in jobs(home)),
    )


def finished(store: Store) -> list[str]:
    """Return the seed of each finished run."""
    return [run.data.params["seed"] for run in runs(store) if run.info.status == "FINISHED"]


def half_written(home: Path) -> list[Path]:
    """Return incomplete and temporary files of all sweeps and of the store."""
    files = [path for name in ("outputs", "mlartifacts") for path in (home / name).rglob("*") if path.is_file()]
    return [path for path in files if path.name.startswith(".") or not _is_complete(path)]


def _is_complete(path: Path) -> bool:
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        if path.suffix == ".yaml":
            assert yaml.safe_load(path.read_text(encoding="utf-8")) is not None, path
        if path.name == "SHA256SUMS":
            Bundle.read(path.parent)
    except (ValueError, AssertionError, yaml.YAMLError, BundleError):
        return False
    return True


def failures_of_a_cold_start(home: Path) -> int:
    """Start four runs at once without a store, and count those that fail or are missing from it."""
    arguments = [sys.executable, "-m", "housing.train", *QUICK[1:], "model=linear"]
    environ = {**os.environ, "HOUSING_HOME": str(home)}
    processes = [
        subprocess.Popen(  # pylint: disable=consider-using-with  # all four run at once
            [*arguments, f"seed={seed}"], env=environ, stdout=subprocess.DEVNULL
        )
        for seed in range(4)
    ]
    codes = [process.wait(200) for process in processes]
    return max(sum(code != 0 for code in codes), 4 - len(finished(open_store(home))))


def open_store(home: Path) -> Store:
    """Return the store of a home, created if necessary."""
    return tracking.Store(f"sqlite:///{home}/mlflow.db", artifact_root=f"{home}/mlartifacts", ui="")


@contextmanager
def new_home() -> Iterator[Path]:
    """Create a home with the rentals table and no store."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "data").mkdir()
        rentals_frame().to_csv(Path(directory) / "data" / "rentals.csv", index=False)
        yield Path(directory)


def main(rounds: int) -> None:
    """Print the losses of each kind of interruption, and the failures of a cold start."""
    print(f"| {rounds} sweeps each | jobs lost | jobs run twice | files half written | jobs reused by the same command |")
    print("|---|---:|---:|---:|---:|")
    for name, kill in KILLS.items():
        total = Losses()
        for _ in range(rounds):
            with new_home() as home:
                total += cut(home, open_store(home), kill)
        print(f"| {name} | {' | '.join(map(str, astuple(total)))} of {rounds * JOBS} |", flush=True)
    print(f"\n| {rounds} times four processes and no store | runs that failed |\n|---|---:|")
    failures = 0
    for _ in range(rounds):
        with new_home() as home:
            failures += failures_of_a_cold_start(home)
    print(f"| cold start | {failures} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
