"""Commands on generated tables of several sizes: processor time and peak memory."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from housing.core.environment import PROJECT
from scripts.benchmarks.processes import PYTHON, make_home, project_environment

N_ROWS = tuple(map(int, os.environ.get("ROWS", "20000 200000 1000000").split()))
N_NEW_ROWS = 10_000
QUIET = ("figures=false", "interval=none")


def print_scale() -> None:
    """Print the cost of each command by the rows of the table. ROWS="20000 200000" changes the numbers of rows."""
    print("| rows | command | CPU, s | peak memory, MB | bytes per row above the smallest |")
    print("|---:|---|---:|---:|---:|")
    smallest: dict[str, tuple[int, float]] = {}
    for rows in N_ROWS:
        with tempfile.TemporaryDirectory() as home:
            make_home(home)
            for name, command in _commands(rows, Path(home)).items():
                cpu, peak = measure_command(command, home)
                first_rows, first_peak = smallest.setdefault(name, (rows, peak))
                growth = f"{1e6 * (peak - first_peak) / (rows - first_rows):.0f}" if rows > first_rows else ""
                print(f"| {rows:,} | {name} | {cpu:.1f} | {peak:.0f} | {growth} |", flush=True)


def _commands(rows: int, home: Path) -> dict[str, tuple[str, ...]]:
    """Return the measured commands by name, after writing the tables that they read."""
    data = ("data=synthetic", f"data.rows={rows}")
    new = [("data=synthetic", f"data.rows={N_NEW_ROWS}", f"data.seed={seed}") for seed in (1, 2)]
    for overrides in (data, *new):
        measure_command(("-m", "housing.fetch", *overrides), str(home))
    table = home / "data" / f"synthetic-{rows}-0.csv"
    first_rows, second_rows = (home / "data" / f"synthetic-{N_NEW_ROWS}-{seed}.csv" for seed in (1, 2))
    return {
        "train features=none": ("-m", "housing.train", *data, "features=none", "refit=false", *QUIET),
        "train experiment=default": ("-m", "housing.train", "experiment=default", *data, "figures=false"),
        "promote": ("-m", "housing.promote", *data, "gate.smoke_test_seconds=null"),
        "predict all rows": ("-m", "housing.predict", *data, f"file={table}", f"out={home}/predictions.csv"),
        f"ingest {N_NEW_ROWS:,} rows, the first": ("-m", "housing.ingest", *data, f"file={first_rows}"),
        f"ingest {N_NEW_ROWS:,} rows": ("-m", "housing.ingest", *data, f"file={second_rows}"),  # reads the index
    }


def measure_command(command: tuple[str, ...], home: str) -> tuple[float, float]:
    """Run Python; return its processor seconds and peak memory in MB."""
    environ = project_environment(HOUSING_HOME=home, OMP_NUM_THREADS="1")
    with tempfile.TemporaryFile() as output:
        with subprocess.Popen([PYTHON, *command], env=environ, cwd=PROJECT, stdout=output, stderr=output) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            sys.exit(f"error: {' '.join(command)} exited with {process.returncode}\n{output.read().decode()}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000
