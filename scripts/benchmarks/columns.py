"""A wide table: the time of one row and of a hundred rows with 50 columns, among them ten categories and two dates."""

import http.client
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pandas as pd

from housing.bundle.bundle import Bundle
from housing.tracking.store import Store
from scripts.benchmarks.any_table import SMALL_MODEL, URL, Row, ask, served_columns, server
from scripts.benchmarks.processes import ROUNDS, run
from server.validation.request_body import parse_predict
from server.validation.rows import RowValidator

N_TABLE_ROWS = 3000
N_NUMBERS, N_CATEGORIES, N_LEVELS = 38, 10, 12
REQUESTS = {1: 300, 100: 30}  # by rows of a request


def print_columns() -> None:
    """Print the time of a request in this process and through a server with one worker."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        rows = _promote(home)
        table = (f"--config-dir={home}/my", "data=wide")
        with server((*table, "serve.workers=1"), home):
            features = [name for name, column in served_columns().items() if column["role"] == "feature"]
            sent = [{name: row[name] for name in features} for row in rows]
            served = {n_rows: _over_http(sent[:n_rows], n_requests) for n_rows, n_requests in REQUESTS.items()}
        with Store(f"sqlite:///{home}/mlflow.db", artifact_root=None, ui="").artifacts.bundle(
            "models:/housing-wide@staging"
        ) as folder:
            bundle = Bundle.read(folder)
        print("| columns | rows | parsed and checked, ms | predicted, ms | through the server, ms |\n|---:|---:|---:|---:|---:|")
        for n_rows, n_requests in REQUESTS.items():
            checked, predicted = _in_process(bundle, sent[:n_rows], n_requests)
            print(f"| {len(features)} | {n_rows} | {checked:.2f} | {predicted:.2f} | {served[n_rows]:.2f} |", flush=True)


def _promote(home: Path) -> list[Row]:
    """Describe, train and promote a generated table, and return rows of it."""
    (home / "my").mkdir()
    frame = _frame()
    frame.to_csv(home / "wide.csv", index=False)
    table = (f"--config-dir={home}/my", "data=wide")
    run("-m", "housing.describe", table[0], f"file={home}/wide.csv", "target=price", home=str(home))
    run("-m", "housing.train", *table, *SMALL_MODEL, home=str(home))
    run("-m", "housing.promote", *table, home=str(home))
    return [dict(zip(frame.columns, row, strict=True)) for row in frame.head(max(REQUESTS)).to_numpy(dtype=object).tolist()]


def _frame() -> pd.DataFrame:
    random = np.random.default_rng(0)
    numbers = {f"number {index}": random.normal(size=N_TABLE_ROWS).round(4) for index in range(N_NUMBERS)}
    levels = [f"level {index}" for index in range(N_LEVELS)]
    categories = {f"kind {index}": random.choice(levels, N_TABLE_ROWS) for index in range(N_CATEGORIES)}
    times = pd.Timestamp("2020-01-01") + pd.to_timedelta(random.integers(0, 10**6, N_TABLE_ROWS), unit="min")
    dates = {"day": times.strftime("%Y-%m-%d"), "time": times.strftime("%Y-%m-%d %H:%M:%S")}
    price = 100 + 10 * numbers["number 0"] + 5 * (categories["kind 0"] == "level 1") + random.normal(size=N_TABLE_ROWS)
    return pd.DataFrame({**numbers, **categories, **dates, "price": price.round(3)})


def _over_http(rows: list[Row], n_requests: int) -> float:
    """Return the median milliseconds of a request on an open connection."""
    body = json.dumps({"instances": rows})
    ask("/predict", {"instances": rows})
    connection = http.client.HTTPConnection(URL.removeprefix("http://"))

    def request() -> None:
        connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
        connection.getresponse().read()

    return _milliseconds(request, n_requests)


def _in_process(bundle: Bundle, rows: list[Row], n_requests: int) -> tuple[float, float]:
    """Return the median milliseconds to parse and check a body, and to predict its rows."""
    validator, body = RowValidator(bundle.schema), json.dumps({"instances": rows}).encode()
    matrix = validator.encode(parse_predict(orjson.loads(body)))
    checked = _milliseconds(lambda: validator.encode(parse_predict(orjson.loads(body))), n_requests)
    return checked, _milliseconds(lambda: bundle.predict(matrix), n_requests)


def _milliseconds(function: Callable[[], object], n_calls: int) -> float:
    durations = []
    for _ in range(ROUNDS * n_calls):
        start = time.perf_counter()
        function()
        durations.append(time.perf_counter() - start)
    return 1000 * statistics.median(durations)
