"""Processes that are measured: their duration, memory and processor time."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from housing.core.environment import PROJECT

PYTHON = sys.executable
ROUNDS = int(os.environ.get("ROUNDS", "3"))
TABLE = PROJECT / "data" / "california.csv"


def project_environment(**variables: str) -> dict[str, str]:
    """Return an environment in which Python finds the project's packages."""
    return {**os.environ, "PYTHONPATH": str(PROJECT), **variables}


def run(*arguments: str, home: str) -> tuple[float, str]:
    """Run Python with these arguments in a home; return seconds and standard output. Exits with its output if it fails."""
    start = time.perf_counter()
    environ = project_environment(HOUSING_HOME=home)
    process = subprocess.run([PYTHON, *arguments], env=environ, cwd=PROJECT, capture_output=True, text=True, check=False)
    if process.returncode:
        sys.exit(f"error: {' '.join(arguments)} exited with {process.returncode}\n{process.stdout}{process.stderr}")
    return time.perf_counter() - start, process.stdout


def make_home(directory: str) -> str:
    """Link the real table into a directory, create an empty store there, and return the directory."""
    if not TABLE.is_file():
        sys.exit(f"error: {TABLE} does not exist. Get it with: python -m housing.fetch")
    (Path(directory) / "data").mkdir()
    (Path(directory) / "data" / TABLE.name).symlink_to(TABLE)
    run("-c", f"from housing.tracking.store import Store; Store('sqlite:///{directory}/mlflow.db', None, '')", home=directory)
    return directory


def newest_bundle(home: Path) -> Path:
    """Return the directory of the bundle that was written last."""
    bundles = home.glob("mlartifacts/*/models/*/artifacts/data/bundle")
    return max(bundles, key=lambda path: path.stat().st_mtime)


def newest_card(home: Path) -> dict[str, Any]:
    """Return the card of the bundle that was written last."""
    card: dict[str, Any] = json.loads((newest_bundle(home) / "card.json").read_text(encoding="utf-8"))
    return card


def measure(arguments: list[str], home: str) -> tuple[float, float]:
    """Run Python; return seconds, and the peak memory in MB of its largest child (of itself if it has none)."""
    peaks: dict[int, float] = {}
    start = time.perf_counter()
    environ = project_environment(HOUSING_HOME=home)
    with subprocess.Popen(
        [PYTHON, *arguments], env=environ, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=process.stdout.read)
        reader.start()
        while process.poll() is None:
            for pid in (process.pid, *children_of(process.pid)):
                peaks[pid] = max(peaks.get(pid, 0), memory_mb(pid, "VmHWM"))
            time.sleep(0.2)
        seconds = time.perf_counter() - start
        reader.join()
    if process.returncode:
        sys.exit(f"error: {' '.join(arguments)} exited with {process.returncode}")
    own_peak = peaks.pop(process.pid, 0.0)
    return seconds, max(peaks.values(), default=own_peak)


@dataclass(frozen=True)
class TreeCost:
    """The cost of a process with all its children: wall time, processor time of all of them, peak memory of the first."""

    seconds: float
    cpu_seconds: float
    parent_mb: float


def measure_tree(arguments: list[str], home: str) -> TreeCost:
    """Run Python with its output in a file of the home, and return the cost. Exits if it fails."""
    start, parent_mb = time.perf_counter(), 0.0
    environ = project_environment(HOUSING_HOME=home)
    with (Path(home) / "output.txt").open("wb") as output:
        streams: Any = {"stdout": output, "stderr": output}
        process = subprocess.Popen([PYTHON, *arguments], env=environ, cwd=PROJECT, **streams)  # pylint: disable=consider-using-with
        pid = process.pid  # only wait4 tells the processor time of this process and its children alone
        while not (waited := os.wait4(pid, os.WNOHANG))[0]:
            parent_mb = max(parent_mb, memory_mb(pid, "VmHWM"))
            time.sleep(0.2)
    _, status, usage = waited
    if status:
        sys.exit(f"error: {' '.join(arguments)} failed; its output is in {home}/output.txt")
    return TreeCost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, parent_mb)


def children_of(pid: int) -> list[int]:
    """Return the child processes of a process."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]
    except OSError:
        return []


def descendants(pid: int) -> list[int]:
    """Return the child processes of all threads of a process, and theirs."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in file.read_text(encoding="utf-8").split()]
        except OSError:  # the thread has ended
            continue
        found += [process for child in children for process in (child, *descendants(child))]
    return found


def memory_mb(pid: int, field: str) -> float:
    """Return the memory of a process: `VmRSS` at present, `VmHWM` at its peak; 0 if the process has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith(field)), 0.0)


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
