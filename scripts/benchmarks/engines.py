"""The engines `memory`, `stream` and `dask` on the same generated tables: processor time, wall time, peak memory and RMSE."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow
import yaml
from pyarrow import parquet

from housing.core.environment import PROJECT
from scripts.benchmarks.processes import PYTHON, descendants, make_home, memory_mb, project_environment

# Rows and columns of each table. ENGINE_TABLES="300000x8" changes them.
TABLES = os.environ.get("ENGINE_TABLES", "300000x8 5000000x8 20000000x20").split()
MAX_MEMORY_VALUES = 50_000_000  # a larger table is not read with engine=memory
CHUNK = 1 << 17  # rows that are generated at once
ENGINES = {  # the options and the measured commands of each
    "memory": (("engine=memory",), ("train", "promote")),
    "stream": (("engine=stream",), ("train", "promote", "predict")),
    "dask, 1 worker": (("engine=dask", "engine.workers=1"), ("train",)),
    "dask, 2 workers": (("engine=dask", "engine.workers=2"), ("train",)),
}
FIT = ("model=xgboost", "features=none", "model.estimator.n_estimators=20", "figures=false", "log_model=all")


def print_engines() -> None:
    """Print the cost of commands with each engine. Predict has no engine, and `dask` promotes like `stream`."""
    print("| rows x columns | engine | command | CPU, s | wall, s | peak memory, MB | of a worker, MB | validation RMSE |")
    print("|---|---|---|---:|---:|---:|---:|---:|")
    for size in TABLES:
        rows, columns = map(int, size.split("x"))
        with tempfile.TemporaryDirectory() as home:
            make_home(home)
            _declare(Path(home), rows, columns)
            for engine, (flags, commands) in ENGINES.items():
                if engine != "memory" or rows * columns <= MAX_MEMORY_VALUES:
                    _print_engine(Path(home), engine, flags, commands, f"{rows:,} x {columns}")


def _print_engine(home: Path, engine: str, engine_flags: tuple[str, ...], names: tuple[str, ...], size: str) -> None:
    flags, table = f"--config-dir={home}/conf", ("data=generated", *engine_flags)
    out = home / engine.replace(", ", "_").replace(" ", "_")
    judged = f"metrics_files=[{out}/metrics.json]"
    commands = {
        "train": ("-m", "housing.train", flags, *table, *FIT, f"export={out}"),
        "promote": (
            "-m",
            "housing.promote",
            flags,
            *table,
            judged,
            "gate.smoke_test_seconds=null",
        ),
        "predict": ("-m", "housing.predict", flags, "data=generated", f"file={home}/generated.parquet", f"out={out}/all.parquet"),
    }
    for name in names:
        start = time.perf_counter()
        cpu, peak, worker = _measure(commands[name], str(home))
        wall = time.perf_counter() - start
        rmse = f"{json.loads((out / 'metrics.json').read_text(encoding='utf-8'))['rmse']:.5f}" if name == "train" else ""
        of_worker = f"{worker:.0f}" if engine.startswith("dask") else ""
        print(f"| {size} | {engine} | {name} | {cpu:.0f} | {wall:.0f} | {peak:.0f} | {of_worker} | {rmse} |", flush=True)


def _measure(command: tuple[str, ...], home: str) -> tuple[float, float, float]:
    """Run Python. Return the processor seconds of all its processes, and the peak MB of the first and of the largest other."""
    environ = project_environment(HOUSING_HOME=home, OMP_NUM_THREADS="1")
    peaks: dict[int, float] = {}
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen([PYTHON, *command], env=environ, cwd=PROJECT, stdout=output, stderr=output) as process,
    ):
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            for pid in (process.pid, *descendants(process.pid)):
                peaks[pid] = max(peaks.get(pid, 0), memory_mb(pid, "VmHWM"))
            time.sleep(0.1)
        _, status, usage = ended
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            sys.exit(f"error: {' '.join(command)} exited with {process.returncode}\n{output.read().decode()}")
    return usage.ru_utime + usage.ru_stime, peaks.pop(process.pid, 0.0), max(peaks.values(), default=0.0)


def _declare(home: Path, rows: int, columns: int) -> None:
    """Write a table of normal variates, whose target is a sum of functions of five of them, and its declaration."""
    names = [f"x{index}" for index in range(columns)]
    declared = {**{name: {"type": "float"} for name in names}, "y": {"type": "float", "role": "target"}}
    path = home / "generated.parquet"
    (home / "conf" / "data").mkdir(parents=True)
    content = yaml.safe_dump({"name": "generated", "path": str(path), "columns": declared})
    (home / "conf" / "data" / "generated.yaml").write_text(content, encoding="utf-8")
    random = np.random.default_rng(0)
    schema = pyarrow.schema([(name, pyarrow.float64()) for name in declared])
    with parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, CHUNK):
            x = random.normal(size=(min(CHUNK, rows - start), columns))
            signal = 10 * x[:, 0] + 5 * np.sin(3 * x[:, 1]) + 4 * x[:, 2] * x[:, 3] + 3 * np.abs(x[:, 4])
            y = 100 + signal + random.normal(scale=3, size=len(x))
            writer.write_table(pyarrow.table([*map(pyarrow.array, x.T), pyarrow.array(y)], schema=schema))
