"""experiment=auto beside AutoML libraries: the same rows, the same time, and the RMSE of the same test rows."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.core.config import CONF
from housing.core.environment import PROJECT
from housing.data.split import Rows, Split, split
from housing.data.table import Table, load
from housing.scoring.metrics import score
from scripts.benchmarks.any_table import describe, parse_tables
from scripts.benchmarks.processes import run
from tests.support.peer_environments import peer_python

MINUTES = float(os.environ.get("MINUTES", "1"))
ENVIRONMENTS = {"autogluon": "autogluon", "flaml": "automl", "mljar": "automl"}  # the lock of each library
PEERS = os.environ.get("PEERS", ",".join(ENVIRONMENTS)).split(",")  # the libraries to compare with
AUTO = "auto"
GRACE = 5.0  # a library is stopped after this many times its minutes
N_CALLS = 50  # predictions of one row that are timed
MEGABYTE = 1e6
HEADINGS = "table | rows fitted | program | RMSE | ratio to auto | model, MB | one row, ms | fit, s"


def print_automl(arguments: Sequence[str] = ()) -> None:
    """Print a line for each table and program, in the order of the RMSE.

    Parameters
    ----------
    arguments
        A folder, and FILE=TARGET for each file in it. Without any, the table of the tutorial.
    """
    if unknown := [library for library in PEERS if library not in ENVIRONMENTS]:
        sys.exit(f"error: PEERS must name libraries among {', '.join(ENVIRONMENTS)} (got {unknown[0]!r})")
    print(f"| {HEADINGS} |\n|---|---:|---|---:|---:|---:|---:|---:|")
    for number, (file, target) in enumerate(parse_tables("automl", arguments)):
        # The order alternates, so that a load of the machine that grows or falls favours no program.
        programs = [AUTO, *PEERS] if number % 2 == 0 else [*PEERS, AUTO]
        with tempfile.TemporaryDirectory() as home:
            _print_table(file, target, Path(home), programs)


def _print_table(file: Path, target: str, home: Path, programs: Sequence[str]) -> None:
    declaration, _, _ = describe(file, target, home)
    cfg = _config(home, declaration.stem)
    table = load(cfg.data)
    parts = split(table, cfg.split)
    rows = np.union1d(parts.train, parts.valid)
    _frame(table, rows).to_parquet(home / "train.parquet")
    _frame(table, parts.test).to_parquet(home / "test.parquet")
    results = {}
    for program in programs:
        result = _run_auto(home, declaration.stem, table, parts) if program == AUTO else _run_peer(program, home)
        if result is not None:
            results[program] = result
    for program, result in sorted(results.items(), key=lambda item: item[1]["rmse"]):
        cells = (
            f"{result['rmse']:.5g}",
            f"{result['rmse'] / results[AUTO]['rmse']:.3f}" if AUTO in results else "",
            f"{result['megabytes']:.1f}",
            f"{result['milliseconds']:.3g}",
            f"{result['seconds']:.0f}",
        )
        print(f"| {file.stem} | {len(rows):,} | {program} | {' | '.join(cells)} |", flush=True)


def _config(home: Path, name: str) -> DictConfig:
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose("train", [f"hydra.searchpath=[file://{home}/my]", f"data={name}", f"paths.data={home}/data"])


def _frame(table: Table, rows: Rows) -> pd.DataFrame:
    """Return features and target as pandas types; a category has pandas' type, so that no library reads its levels as text."""
    records = table.schema.decode(table.matrix[rows], table.texts_of(rows))
    columns = {}
    for column in table.schema.features:
        values = pd.Series([record[column.name] for record in records])
        columns[column.name] = values.astype("category") if column.type == "category" else values
    return pd.DataFrame({**columns, table.schema.target.name: table.target[rows]})


def _run_auto(home: Path, name: str, table: Table, parts: Split) -> Mapping[str, float] | None:
    """Return the figures of the search, or None if it fails, as if no candidate is finished within the time."""
    options = ("experiment=auto", f"minutes={MINUTES}", "figures=false", f"data={name}")
    try:
        seconds, _ = run("-m", "housing.train", f"--config-dir={home}/my", *options, home=str(home))
    except SystemExit as error:
        print(error, file=sys.stderr)
        return None
    (folder,) = home.glob("mlartifacts/*/models/*/artifacts/data/bundle")
    bundle = Bundle.read(folder)
    matrix = table.encoded_as(bundle.schema).matrix[parts.test]
    times = []
    for index in range(N_CALLS):
        row = matrix[[index % len(matrix)]]
        start = time.perf_counter()
        bundle.predict(row)
        times.append(time.perf_counter() - start)
    return {
        "rmse": score(bundle.predict(matrix), table.target[parts.test], None)["rmse"],
        "megabytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MEGABYTE,
        "milliseconds": 1e3 * statistics.median(times),
        "seconds": seconds,
    }


def _run_peer(library: str, home: Path) -> Mapping[str, float] | None:
    """Return what a library's program prints, or None if it fails or does not end."""
    program = PROJECT / "scripts" / "benchmarks" / "peers" / "fit_automl.py"
    command = [peer_python(ENVIRONMENTS[library]), str(program), library, str(home), str(60 * MINUTES)]
    limit = 60 * (GRACE * MINUTES + 1)
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit, cwd=home)
    except subprocess.TimeoutExpired:
        print(f"{library} did not end within {limit:.0f} s", file=sys.stderr)
        return None
    if process.returncode:
        print(f"{library} failed\n{process.stderr}", file=sys.stderr)
        return None
    result: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return result
