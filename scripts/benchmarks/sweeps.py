"""Sweeps: their overhead beside a bare loop, searches, large stores, several nodes."""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from housing.core.environment import PROJECT
from scripts.benchmarks.processes import PYTHON, ROUNDS, TABLE, make_home, measure, measure_tree, project_environment, run
from scripts.benchmarks.quality import P1

SINGLE_FIT = ("refit=false", "interval=none")  # the loop beside it fits once as well
N_JOBS, N_JOBS_OF_HYDRA = 200, 60
N_JOBS_OF_LARGE_SWEEPS = (100, 1000)
N_TRIALS, N_RANDOM_TRIALS = 30, 10
BASIC_SWEEPER = "hydra.sweeper._target_=hydra._internal.core_plugins.basic_sweeper.BasicSweeper"  # composes each job anew

Command = Callable[[int], list[str]]  # the arguments for Python, by number of jobs


def _loop(processes: int) -> Command:
    return lambda jobs: ["-m", "scripts.benchmarks.joblib_loop", str(TABLE), str(jobs), str(processes)]


def _sweep(*options: str) -> Command:
    fixed = ["model.estimator.max_depth=12", "log_model=best", "figures=false", *SINGLE_FIT]
    command = ["-m", "housing.train", "-m", "model=decision_tree", "features=none", *P1, *fixed, *options]
    return lambda jobs: [*command, f"model.estimator.min_samples_leaf=range(1,{1 + jobs})"]


LOOP, PARALLEL_LOOP = "joblib loop", "joblib loop, 2 at a time"
COMMANDS: dict[str, Command] = {
    LOOP: _loop(1),
    PARALLEL_LOOP: _loop(2),
    "housing": _sweep(),
    "housing processes, 1 at a time": _sweep("hydra/launcher=processes", "hydra.launcher.n_jobs=1"),
    "housing processes, 2 at a time": _sweep("hydra/launcher=processes", "hydra.launcher.n_jobs=2"),
    "Hydra's sweeper, basic launcher": _sweep(BASIC_SWEEPER),
    "Hydra's sweeper, joblib launcher, 2 at a time": _sweep(BASIC_SWEEPER, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
}
SERIAL = {  # the command that a parallel one is compared with
    PARALLEL_LOOP: LOOP,
    "housing processes, 2 at a time": "housing processes, 1 at a time",
    "Hydra's sweeper, joblib launcher, 2 at a time": "Hydra's sweeper, basic launcher",
}


def print_sweeps() -> None:
    """Print what a run costs in a sweep beside a bare loop, then what it costs in sweeps of different sizes."""
    print_overhead()
    print_thousands()


def print_overhead() -> None:
    """Print the time of a run in a sweep beside a bare joblib loop of the same fits and scores, one and two at a time."""
    print(f"| {N_JOBS} decision trees, features none | s per run | above the loop | two at a time: speed-up | worker's peak MB |")
    print("|---|---:|---:|---:|---:|")
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    peaks: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for round_ in range(ROUNDS):
        for name, command in COMMANDS.items():
            of_hydra = name.startswith("Hydra")
            if of_hydra and round_:
                continue  # slow, and far from ours: one round is enough
            n_jobs = N_JOBS_OF_HYDRA if of_hydra else N_JOBS
            with tempfile.TemporaryDirectory() as directory:
                home = make_home(directory)
                (two, _), (many, peak) = (measure(command(jobs), home) for jobs in (2, n_jobs))
            seconds[name].append((many - two) / (n_jobs - 2))  # the second sweep reuses the two runs of the first
            peaks[name].append(peak)
            print(f"{name}: {two:.1f} s for 2, {many:.1f} s for {n_jobs}", file=sys.stderr, flush=True)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        overhead = median - medians[PARALLEL_LOOP if name.endswith("2 at a time") else LOOP]
        speed_up = f"{medians[SERIAL[name]] / median:.2f}" if name in SERIAL else ""
        print(f"| {name} | {median:.3f} | {overhead:.3f} | {speed_up} | {max(peaks[name]):.0f} |", flush=True)


def print_thousands() -> None:
    """Print what a job costs in sweeps of 100 and of 1,000 jobs beside their bare fit, and a resume that has nothing to do."""
    fixed = ["model=linear", "features=none", "log_model=best", "figures=false", *SINGLE_FIT, *P1]
    command = ["-m", "housing.train", "-m", *fixed, "hydra/launcher=processes", "hydra.launcher.n_jobs=1"]
    print("| jobs | CPU s per job | CPU s per job of a resume | wall s | parent's peak MB | store MB | page MB |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for n_jobs in N_JOBS_OF_LARGE_SWEEPS:
        with tempfile.TemporaryDirectory() as directory:
            home = make_home(directory)
            arguments = [*command, f"seed=range(0,{n_jobs})"]
            two, first, resumed = (measure_tree(each, home) for each in ([*command, "seed=0,1"], arguments, arguments))
            per_job, per_reuse = ((cost.cpu_seconds - two.cpu_seconds) / (n_jobs - 2) for cost in (first, resumed))
            page = max(Path(home).glob("outputs/sweeps/*/leaderboard.html"))
            sizes = " | ".join(f"{path.stat().st_size / 1e6:.2f}" for path in (Path(home) / "mlflow.db", page))
            print(
                f"| {n_jobs} | {per_job:.3f} | {per_reuse:.3f} | {first.seconds:.0f} | {first.parent_mb:.0f} | {sizes} |",
                flush=True,
            )


def print_search() -> None:
    """Print the best validation RMSE of Optuna's sampler, and of random search that shares the first trials."""
    print(f"| search=xgboost features=static, {N_TRIALS} trials | best RMSE, TPE | best RMSE, random |\n|---|---:|---:|")
    for seed in (0, 1, 2):
        best = []
        with tempfile.TemporaryDirectory() as directory:
            home = make_home(directory)
            options = [
                "search=xgboost",
                "features=static",
                "log_model=best",
                "figures=false",
                f"hydra.sweeper.n_trials={N_TRIALS}",
            ]
            for n_random in (N_RANDOM_TRIALS, N_TRIALS):
                sampler = [f"hydra.sweeper.sampler.seed={1000 * seed}", f"hydra.sweeper.sampler.n_startup_trials={n_random}"]
                run("-m", "housing.train", "-m", *options, *SINGLE_FIT, *sampler, *P1, home=home)
                jobs = json.loads((max(Path(home).glob("outputs/sweeps/*")) / "jobs.json").read_text(encoding="utf-8"))
                best.append(min(job["metrics"]["rmse"] for job in jobs))
        print(f"| seed {seed} | {best[0]:.4f} | {best[1]:.4f} |", flush=True)


def print_large_store() -> None:
    """Print the time of a reused run, and of a sweep of reused runs, in stores of many finished runs."""
    print("| finished runs in the store | reused run, s | whole command of 100 reused runs, s |\n|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as directory:
        home = make_home(directory)
        run(*_sweep()(100), home=home)
        for n_runs in (101, 1000, 10_000):
            run("-m", "scripts.benchmarks.copy_runs", home, str(n_runs), home=home)
            rounds = [[run(*_sweep()(jobs), home=home)[0] for jobs in (2, 100)] for _ in range(ROUNDS)]
            per_run = statistics.median((many - two) / 98 for two, many in rounds)
            print(f"| {n_runs:,} | {per_run:.3f} | {statistics.median(many for _, many in rounds):.1f} |", flush=True)


def print_two_nodes() -> None:
    """Print the wall time of a sweep on one and on two nodes of a real Slurm on this machine, one core each."""
    with tempfile.TemporaryDirectory() as directory:
        arguments = [PYTHON, "-m", "scripts.benchmarks.two_nodes", directory, str(ROUNDS)]
        process = subprocess.run(arguments, env=project_environment(), cwd=PROJECT, capture_output=True, text=True, check=False)
    if process.returncode:
        sys.exit(f"error: {process.stdout}{process.stderr}")
    rounds = [line.split() for line in process.stdout.splitlines()]
    print("| 12 jobs of some seconds | wall time, s | jobs by node, last round |\n|---|---:|---|")
    for nodes in ("1", "2"):
        sweeps = [round_ for round_ in rounds if round_[0] == nodes]
        seconds = statistics.median(float(sweep[1]) for sweep in sweeps)
        print(f"| nodes: {nodes} | {seconds:.0f} | {', '.join(sweeps[-1][2:])} |")
