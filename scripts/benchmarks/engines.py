"""The engines `memory` and `stream` on the same generated tables: processor time, wall time, peak memory and RMSE."""

import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow
import yaml
from pyarrow import parquet

from scripts.benchmarks.processes import make_home
from scripts.benchmarks.scale import measure_command

# Rows and columns of each table. ENGINE_TABLES="300000x8" changes them.
TABLES = os.environ.get("ENGINE_TABLES", "300000x8 5000000x8 20000000x20").split()
MAX_MEMORY_VALUES = 50_000_000  # a larger table is not read with engine=memory
CHUNK = 1 << 17  # rows that are generated at once
FIT = ("model=xgboost", "features=none", "model.estimator.n_estimators=20", "figures=false", "log_model=all")


def print_engines() -> None:
    """Print the cost of train, promote and predict with each engine."""
    print("| rows x columns | engine | command | CPU, s | wall, s | peak memory, MB | validation RMSE |")
    print("|---|---|---|---:|---:|---:|---:|")
    for size in TABLES:
        rows, columns = map(int, size.split("x"))
        with tempfile.TemporaryDirectory() as home:
            make_home(home)
            _declare(Path(home), rows, columns)
            for engine in ("memory", "stream"):
                if engine == "stream" or rows * columns <= MAX_MEMORY_VALUES:
                    _print_engine(Path(home), engine, f"{rows:,} x {columns}")


def _print_engine(home: Path, engine: str, size: str) -> None:
    flags, table = f"--config-dir={home}/conf", ("data=generated", f"engine={engine}")
    out = home / engine
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
    if engine == "memory":
        del commands["predict"]  # it has no engine
    for name, command in commands.items():
        start = time.perf_counter()
        cpu, peak = measure_command(command, str(home))
        wall = time.perf_counter() - start
        rmse = f"{json.loads((out / 'metrics.json').read_text(encoding='utf-8'))['rmse']:.5f}" if name == "train" else ""
        print(f"| {size} | {engine} | {name} | {cpu:.0f} | {wall:.0f} | {peak:.0f} | {rmse} |", flush=True)


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
