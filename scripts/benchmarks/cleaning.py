"""Clean-up of stores with many runs: seconds, the disk that is freed, and what is kept."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

from scripts.benchmarks.copy_runs import TABLES
from scripts.benchmarks.processes import PYTHON, make_home, project_environment, run

N_RUNS = (100, 1000)
MODEL_TABLES = ("logged_models", "logged_model_tags", "logged_model_params", "logged_model_metrics")
DAY_MS = 24 * 3600 * 1000
DATA = ("data=california",)
KEEP = ("keep_best=20", "keep_days=90")


def print_cleaning() -> None:
    """Print what housing.clean removes and keeps in stores of several sizes, and how long it takes."""
    print("| runs | clean, s | ms per removed run | kept runs | freed folders, MB | gc, s | freed by gc, MB |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as directory:
        home = make_home(directory)
        run("-m", "housing.train", *DATA, "model=linear", home=home)
        run("-m", "housing.promote", *DATA, "gate.smoke_test_seconds=null", home=home)
        for n_runs in N_RUNS:
            print(_measure(Path(home), n_runs), flush=True)


def _measure(original: Path, n_runs: int) -> str:
    """Clean a copy of a home with more runs, and return a line of the table."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory, "home")
        shutil.copytree(original, home, symlinks=True)
        run("-m", "housing.alias", *DATA, home=str(home))  # rewrites the addresses of artifacts
        copy_runs(home, n_runs - 1)
        seconds, output = run("-m", "housing.clean", *DATA, *KEEP, "dry_run=false", "output=json", home=str(home))
        cleaned = json.loads(output)["result"]
        removed, kept = len(cleaned["runs"]), cleaned["kept_runs"]
        gc_seconds, gc_bytes = _collect_garbage(home)
    times = f"{seconds:.1f} | {1000 * seconds / removed:.1f}"
    return f"| {n_runs:,} | {times} | {kept} | {cleaned['freed'] / 1e6:.0f} | {gc_seconds:.0f} | {gc_bytes / 1e6:.0f} |"


def copy_runs(home: Path, n_copies: int) -> None:
    """Copy the only run with its bundle, artifacts and folder. The copies are 100 days older, and their scores differ."""
    [folder] = [path for path in (home / "outputs" / "runs").iterdir() if path.is_dir()]
    outcome = json.loads((folder / "outcome.json").read_text(encoding="utf-8"))
    old = time.time() - 100 * 24 * 3600
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        database.row_factory = sqlite3.Row
        run_id = outcome["run_id"]
        rows = {table: _select(database, table, "run_uuid", run_id) for table in TABLES}
        [model] = _select(database, "logged_models", "source_run_id", run_id)
        models = {table: _select(database, table, "model_id", model["model_id"]) for table in MODEL_TABLES}
        for number in range(n_copies):
            new_run, new_model = uuid.uuid4().hex, f"m-{uuid.uuid4().hex}"
            names = {run_id: new_run, model["model_id"]: new_model}
            for table, originals in {**rows, **models}.items():
                for row in originals:
                    _insert(database, table, _changed(table, row, names, number))
            for location in (rows["runs"][0]["artifact_uri"], model["artifact_location"]):
                source = Path(location.removeprefix("file://"))
                shutil.copytree(source, Path(_renamed(str(source), names)))
            target = folder.parent / f"copy-{number}"
            shutil.copytree(folder, target)
            (target / "outcome.json").write_text(json.dumps({**outcome, "run_id": new_run}), encoding="utf-8")
            _set_times(target, old)
        database.commit()


def _select(database: sqlite3.Connection, table: str, column: str, value: str) -> list[dict[str, Any]]:
    return [dict(row) for row in database.execute(f"SELECT * FROM {table} WHERE {column} = ?", (value,))]


def _insert(database: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
    values = ",".join("?" * len(row))
    database.execute(f"INSERT INTO {table} ({','.join(row)}) VALUES ({values})", list(row.values()))


def _changed(table: str, row: dict[str, Any], names: dict[str, str], number: int) -> dict[str, Any]:
    """Return a row of a copied run: with its ids, 100 days older, and with another score."""
    copy: dict[str, Any] = {column: _renamed(value, names) if isinstance(value, str) else value for column, value in row.items()}
    for column in ("start_time", "end_time", "creation_timestamp_ms", "last_updated_timestamp_ms"):
        if copy.get(column) is not None:
            copy[column] -= 100 * DAY_MS
    if table == "tags" and row["key"].startswith("housing.run_key."):
        name = copy["run_uuid"]
        copy |= {"key": f"housing.run_key.{name[:16]}", "value": 2 * name}
    if table in ("metrics", "latest_metrics") and row["key"] == "rmse":
        copy["value"] += 1e-6 * (1 + number)
    return copy


def _renamed(text: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        text = text.replace(old, new)
    return text


def _set_times(folder: Path, seconds: float) -> None:
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (seconds, seconds))


def _collect_garbage(home: Path) -> tuple[float, int]:
    """Run MLflow's garbage collection; return its seconds and the bytes that it frees."""
    uri, before = f"sqlite:///{home}/mlflow.db", _size(home / "mlartifacts")
    start = time.perf_counter()
    environ = project_environment(MLFLOW_TRACKING_URI=uri)
    words = [PYTHON, "-m", "mlflow", "gc", "--backend-store-uri", uri]
    done = subprocess.run(words, env=environ, cwd=home, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: mlflow gc exited with {done.returncode}\n{done.stdout}{done.stderr}")
    return time.perf_counter() - start, before - _size(home / "mlartifacts")


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
