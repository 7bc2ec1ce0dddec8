"""Encodings of categories: validation scores of each method, and the cost of a row with many levels."""

import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.core.config import CONF
from housing.core.environment import PROJECT
from housing.data.split import split
from housing.data.table import load
from housing.features.level_encodings import ONE_HOT, SUFFIXES
from housing.fitting.fitting import FitSettings, fit
from housing.scoring.metrics import score
from scripts.benchmarks.processes import PYTHON, project_environment, run

MODELS, N_SPLITS = ("xgboost", "linear"), 5
THRESHOLDS, SMOOTHINGS = (10, 20, 30, 100), (0.3, 1, 3, 10)
N_LEVELS = (10, 10_000, 100_000)
PORT, N_REQUESTS, START_SECONDS = 18439, 1000, 60
STREETS = """name: streets
path: {home}/streets.csv
columns:
  street: {{type: category, categories: auto}}
  area: {{type: float}}
  price: {{type: float, role: target}}
"""


def print_methods(arguments: Sequence[str] = ()) -> None:
    """Print validation RMSEs of each method, number of one-hot levels and smoothing: means of several splits.

    Parameters
    ----------
    arguments
        A folder with config files, and the names of tables in its folder `data`. Without any, a generated table.
    """
    with tempfile.TemporaryDirectory() as home:
        folder, *tables = arguments or (home, "streets")
        if not tables:
            sys.exit("error: encodings needs a folder of config files, and names of tables, such as: my houses rentals")
        if not arguments:
            _write_streets(Path(home), 1000)
        for key, values in (("method", (*SUFFIXES, ONE_HOT)), ("max_one_hot_levels", THRESHOLDS), ("smoothing", SMOOTHINGS)):
            print(f"\n| table | model | {' | '.join(f'{key} {value}' for value in values)} |")
            print(f"|---|---|{'---:|' * len(values)}", flush=True)
            for table, model in ((table, model) for table in tables for model in MODELS):
                method = () if key == "method" else ("features.encoding.method=target_mean_and_share",)
                overrides = [(f"data={table}", f"model={model}", *method, f"features.encoding.{key}={value}") for value in values]
                rmse = [f"{validation_rmse(Path(folder), *each):.5g}" for each in overrides]
                print(f"| {table} | {model} | {' | '.join(rmse)} |", flush=True)


def validation_rmse(folder: Path, *overrides: str) -> float:
    """Return the mean validation RMSE of a fit on training rows, over several splits."""
    errors = []
    for number in range(N_SPLITS):
        cfg = _config(folder, *overrides, "features=none", f"split.salt=s{number}")
        table = load(cfg.data)
        parts = split(table, cfg.split)
        table = table.learn(parts.train)
        predicted = fit(FitSettings.from_config(cfg), table, parts.train, parts.valid).predict(table.matrix[parts.valid])
        errors.append(score(predicted, table.target[parts.valid], table.weight_of(parts.valid))["rmse"])
    return statistics.mean(errors)


def _config(folder: Path, *overrides: str) -> DictConfig:
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose("train", [f"hydra.searchpath=[file://{folder.resolve()}]", *overrides])


def print_row_cost() -> None:
    """Print the time of one row and of an error by the number of levels: processor time, and through the server elapsed time."""
    print("| levels | one row in-process, µs | through the server, ms | first error, ms | next error, ms | bundle, MB |")
    print("|---:|---:|---:|---:|---:|---:|", flush=True)
    for n_levels in N_LEVELS:
        with tempfile.TemporaryDirectory() as home:
            print(f"| {n_levels:,} | {' | '.join(_measure(Path(home), n_levels))} |", flush=True)


def _measure(home: Path, n_levels: int) -> list[str]:
    """Train, promote and serve a model of a table whose category has this number of levels."""
    _write_streets(home, n_levels)
    table = (f"--config-dir={home}", "data=streets")
    options = ("features=none", "interval=none", "figures=false", "features.encoding.method=target_mean_and_share")
    run("-m", "housing.train", *table, *options, "model.estimator.n_estimators=100", home=str(home))
    run("-m", "housing.promote", *table, "gate.smoke_test_seconds=null", home=str(home))
    (card,) = home.glob("mlartifacts/streets/models/*/artifacts/data/bundle/card.json")
    bundle = Bundle.read(card.parent)
    row = {"street": f"street {n_levels // 2}", "area": 50.0}
    column = bundle.schema.features[0]
    refusing = replace(column, unseen="refuse")
    in_process = _median_seconds(lambda: bundle.predict(bundle.schema.encode_records([row])), time.process_time)
    errors = [_median_seconds(lambda: refusing.validate("stret 77"), time.process_time, times) for times in (1, 20)]
    size = sum(path.stat().st_size for path in card.parent.rglob("*") if path.is_file())
    milliseconds = [_median_request(home, table, row), *errors]
    return [f"{1e6 * in_process:.0f}", *(f"{1e3 * seconds:.2f}" for seconds in milliseconds), f"{size / 1e6:.1f}"]


def _median_request(home: Path, table: Sequence[str], row: dict[str, object]) -> float:
    """Return the median time of a request of one row over one connection."""
    arguments = [PYTHON, "-m", "housing.serve", *table, f"serve.port={PORT}", "serve.workers=1", "serve.poll_seconds=0.1"]
    environ = project_environment(HOUSING_HOME=str(home))
    with subprocess.Popen(arguments, env=environ, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            body = json.dumps(row)
            _wait_for_prediction(body)
            connection = http.client.HTTPConnection("127.0.0.1", PORT)
            return _median_seconds(lambda: _predict(connection, body), time.perf_counter)
        finally:
            process.terminate()


def _predict(connection: http.client.HTTPConnection, body: str) -> None:
    connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    if response.status != http.HTTPStatus.OK:
        raise OSError(content)


def _wait_for_prediction(body: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            _predict(http.client.HTTPConnection("127.0.0.1", PORT), body)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _median_seconds(call: Callable[[], object], clock: Callable[[], float], times: int = N_REQUESTS) -> float:
    seconds = []
    for _ in range(times):
        start = clock()
        call()
        seconds.append(clock() - start)
    return statistics.median(seconds)


def _write_streets(home: Path, n_levels: int) -> None:
    """Write a table of houses whose price depends on street and area, three to a street and 20,000 at least."""
    random = np.random.default_rng(0)
    n_rows = max(3 * n_levels, 20_000)
    street = np.concatenate([np.arange(n_levels), random.integers(0, n_levels, n_rows - n_levels)])
    area = random.uniform(20, 150, n_rows).round(1)
    price = (random.normal(300, 100, n_levels)[street] + area + random.normal(0, 50, n_rows)).round(2)
    (home / "data").mkdir(exist_ok=True)
    (home / "data" / "streets.yaml").write_text(STREETS.format(home=home), encoding="utf-8")
    frame = pd.DataFrame({"street": [f"street {number}" for number in street], "area": area, "price": price})
    frame.to_csv(home / "streets.csv", index=False)
