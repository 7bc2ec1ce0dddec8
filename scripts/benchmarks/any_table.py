"""Tables as they are: from a file to a served prediction by describe, train, promote and serve, without an edit of the YAML."""

import json
import math
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import parquet

from housing.core.environment import PROJECT
from scripts.benchmarks.processes import PYTHON, project_environment, run

EXAMPLE = ("docs/tutorials", "rentals.csv=rent")
URL = "http://127.0.0.1:18437"
SKEWED_TARGET = "target.transform=auto"  # what housing.describe advises for a heavily skewed target
SMALL_MODEL = ("features=none", "figures=false", "model=xgboost", "model.estimator.n_estimators=100")
CHUNK_ROWS = 1000
START_SECONDS = 60
HEADINGS = (
    "table | rows | columns | describe, s | train, s | promote, s | serve, s | lines of YAML | warnings | rows served as offline"
)

Row = dict[str, Any]


@dataclass(frozen=True)
class Served:
    """A server's first prediction, in seconds after its start, and the predictions of all rows by each route."""

    seconds: float
    predictions: dict[str, list[float]]


def print_journeys(arguments: Sequence[str] = ()) -> None:
    """Print a line for each file.

    Parameters
    ----------
    arguments
        A folder, and FILE=TARGET for each file in it. Without any, the table of the tutorial.
    """
    tables = parse_tables("anytable", arguments)
    print(f"| {HEADINGS} |\n|---|{'---:|' * HEADINGS.count('|')}")
    for file, target in tables:
        with tempfile.TemporaryDirectory() as home:
            print(f"| {' | '.join(_travel(file, target, Path(home)))} |", flush=True)


def parse_tables(benchmark: str, arguments: Sequence[str]) -> list[tuple[Path, str]]:
    """Return the files and their targets that the arguments of a benchmark name, or the table of the tutorial."""
    folder, *pairs = arguments or EXAMPLE
    if not pairs or not all("=" in pair for pair in pairs):
        sys.exit(f"error: {benchmark} needs a folder, and FILE=TARGET for each file in it, such as: data houses.csv=price")
    return [((PROJECT / folder / file).resolve(), target) for file, _, target in (pair.partition("=") for pair in pairs)]


def describe(file: Path, target: str, home: Path) -> tuple[Path, float, str]:
    """Describe a file, and return its declaration in `home`/my/data, the duration in seconds, and the printed text."""
    (home / "my").mkdir()
    arguments = (f"--config-dir={home}/my", f"file='{file}'", f"target='{target}'")
    seconds, text = run("-m", "housing.describe", *arguments, home=str(home))
    (declaration,) = (home / "my" / "data").glob("*.yaml")
    return declaration, seconds, text


def _travel(file: Path, target: str, home: Path) -> list[str]:
    """Take a file from describe to a served prediction, and return the cells of its line."""
    declaration, describe_seconds, described = describe(file, target, home)
    table = (f"--config-dir={home}/my", f"data={declaration.stem}")
    advised = [SKEWED_TARGET] if SKEWED_TARGET in described else []
    train_seconds, _ = run("-m", "housing.train", *table, *SMALL_MODEL, *advised, home=str(home))
    promote_seconds, _ = run("-m", "housing.promote", *table, "gate.min_rows=20", home=str(home))
    rows, offline = _predict_offline(file, table, home)
    served = _serve(table, rows, home)
    equal = sum(all(other[row] == value for other in served.predictions.values()) for row, value in enumerate(offline))
    seconds = (describe_seconds, train_seconds, promote_seconds, served.seconds)
    return [
        file.name,
        f"{len(rows):,}",
        str(len(rows[0])),
        *(f"{value:.1f}" for value in seconds),
        str(declaration.read_text(encoding="utf-8").count("\n")),
        str(described.count("\n  ! ")),
        "all" if equal == len(rows) else f"{equal:,}",
    ]


def _predict_offline(file: Path, table: Sequence[str], home: Path) -> tuple[list[Row], list[float]]:
    """Return the typed rows of a file and their predictions by housing.predict."""
    out = home / "predictions.parquet"
    run("-m", "housing.predict", *table, f"file='{file}'", f"out={out}", home=str(home))
    rows = [{name: _to_json(value) for name, value in row.items()} for row in parquet.read_table(out).to_pylist()]
    return rows, [row.popitem()[1] for row in rows]  # the last column


def _to_json(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _serve(table: Sequence[str], rows: Sequence[Row], home: Path) -> Served:
    """Start a server, and request predictions of all rows by both routes."""
    start = time.perf_counter()
    with server(table, home):
        columns = served_columns()
        features = [name for name, column in columns.items() if column["role"] in ("feature", "latitude", "longitude")]
        records = [{name: row[name] for name in features} for row in rows]
        ask("/predict", records[0])
        seconds = time.perf_counter() - start
        predictions = {
            route: [
                prediction
                for first in range(0, len(records), CHUNK_ROWS)
                for prediction in ask(route, {layout: records[first : first + CHUNK_ROWS]})["predictions"]
            ]
            for route, layout in (("/predict", "instances"), ("/invocations", "dataframe_records"))
        }
        predictions["/predict, row by row"] = [ask("/predict", row)["predictions"][0] for row in records[:CHUNK_ROWS]]
        predictions["/predict, row by row"] += predictions["/predict"][CHUNK_ROWS:]
        return Served(seconds, predictions)


@contextmanager
def server(table: Sequence[str], home: Path) -> Iterator[None]:
    """Serve a table's model for the time of a block."""
    arguments = [PYTHON, "-m", "housing.serve", *table, f"serve.port={URL.rpartition(':')[2]}", "serve.poll_seconds=0.1"]
    environ = project_environment(HOUSING_HOME=str(home))
    with subprocess.Popen(arguments, env=environ, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def served_columns() -> dict[str, Any]:
    """Return the columns of the served model, as soon as there is one."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError):
            columns: dict[str, Any] = ask("/model")["schema"]["columns"]
            return columns
        time.sleep(0.05)
    sys.exit(f"error: {URL} served no model within {START_SECONDS} s")


def ask(route: str, body: object = None) -> Any:
    """Send a GET request, or a body as JSON, and return the JSON of the response."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{URL}{route}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)
