"""Test errors on several tables: presets of the project beside the plain defaults of four boosting libraries."""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from housing.core.config import CONF
from housing.data.split import Rows, Split, split
from housing.data.table import Table, load
from housing.scoring.metrics import score
from housing.training.build import BuildSettings, build
from scripts.benchmarks.any_table import describe, parse_tables

PRESETS = {"plain": (), "default": ("experiment=default",)}  # plain: housing.train without options
N_SPLITS = 5
MAX_ROWS = 10_000  # a random sample of larger tables
N_CALLS = 50  # predictions of one row that are timed


@dataclass(frozen=True)
class Measurement:
    """The test RMSE of a model, the processor time of everything that leads to it, and the time of one row."""

    rmse: float
    seconds: float
    row_microseconds: float


def print_tables(arguments: Sequence[str] = ()) -> None:
    """Print test RMSEs as ratios to the lowest of the four libraries, over splits by hash.

    Parameters
    ----------
    arguments
        A folder, and FILE=TARGET for each file in it. Without any, the table of the tutorial.
    """
    print(
        "| table | rows | model | RMSE | ratio to the best library | largest | fit, processor s | times CatBoost | one row, µs |"
    )
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|", flush=True)
    ratios: dict[str, list[float]] = {name: [] for name in (*LIBRARIES, *PRESETS)}
    slowness: dict[str, list[float]] = {name: [] for name in ratios}
    for file, target in parse_tables("tables", arguments):
        with tempfile.TemporaryDirectory() as home:
            declaration, _, _ = describe(file, target, Path(home))
            n_rows, runs = _measure_table(Path(home) / "my", declaration.stem)
        for model in ratios:
            of_splits = [run[model].rmse / min(run[library].rmse for library in LIBRARIES) for run in runs]
            ratios[model].append(statistics.geometric_mean(of_splits))
            times = [run[model].seconds / run["catboost"].seconds for run in runs]
            slowness[model].append(statistics.geometric_mean(times))
            cells = _cells([run[model] for run in runs], of_splits, slowness[model][-1])
            print(f"| {file.name} | {n_rows:,} | {model} | {' | '.join(cells)} |", flush=True)
    for model, of_tables in ratios.items():
        ratio, times_catboost = statistics.geometric_mean(of_tables), statistics.geometric_mean(slowness[model])
        print(f"| all | | {model} | | **{ratio:.3f}** | {max(of_tables):.3f} | | {times_catboost:.1f} | |")


def _cells(runs: Sequence[Measurement], ratios: Sequence[float], times_catboost: float) -> list[str]:
    return [
        f"{statistics.mean(run.rmse for run in runs):.5g}",
        f"{statistics.geometric_mean(ratios):.3f}",
        f"{max(ratios):.3f}",
        f"{statistics.mean(run.seconds for run in runs):.1f}",
        f"{times_catboost:.1f}",
        f"{statistics.mean(run.row_microseconds for run in runs):.0f}",
    ]


def _measure_table(config: Path, name: str) -> tuple[int, list[dict[str, Measurement]]]:
    """Return the number of rows, and for each split the measurement of each model."""
    runs, table = [], load(table_config(config, name).data)
    table = table.take(np.sort(np.random.default_rng(0).permutation(len(table))[:MAX_ROWS]))
    for number in range(N_SPLITS):
        options = (f"split.salt=s{number}", "n_threads=1")
        parts = split(table, table_config(config, name, *options).split)
        measured = _measure_libraries(table, parts)
        for preset, overrides in PRESETS.items():
            measured[preset] = measure_preset(table_config(config, name, *options, *overrides), table, parts)
        runs.append(measured)
    return len(table), runs


def table_config(folder: Path, table: str, *overrides: str) -> DictConfig:
    """Compose the config of housing.train for a table that is declared in a folder."""
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose("train", [f"hydra.searchpath=[file://{folder}]", f"data={table}", *overrides])


def measure_preset(cfg: DictConfig, table: Table, parts: Split) -> Measurement:
    """Fit the model of a config, and measure it on the test rows."""
    start = time.process_time()
    bundle, metrics = build(BuildSettings.from_config(cfg), table, parts, run_id="none")
    seconds = time.process_time() - start
    encoded = table.encoded_as(bundle.schema)
    rmse = score(bundle.predict(encoded.matrix[parts.test]), table.target[parts.test], None)["rmse"]
    return Measurement(rmse, seconds, metrics["latency_us"])


def _measure_libraries(table: Table, parts: Split) -> dict[str, Measurement]:
    """Fit the libraries on training and validation rows, with each library's own handling of categories."""
    rows = np.sort(np.concatenate([parts.train, parts.valid]))
    table = table.learn(rows)
    fitted_on, test = _frame(table, rows), _frame(table, parts.test)
    measured = {}
    for name, fit in LIBRARIES.items():
        start = time.process_time()
        predict = fit(fitted_on, table.target[rows])
        seconds = time.process_time() - start
        rmse = score(np.asarray(predict(test), dtype=np.float64), table.target[parts.test], None)["rmse"]
        measured[name] = Measurement(rmse, seconds, _row_microseconds(predict, test))
    return measured


def _frame(table: Table, rows: Rows) -> pd.DataFrame:
    """Return the features of some rows. Categories have pandas' type; levels that no fitted row has are missing.

    Columns of texts are left out, which the libraries do not read as they are.
    """
    columns: dict[str, Any] = {}
    for index, column in enumerate(table.schema.features):
        if column.is_free_text:
            continue
        values = table.matrix[rows, index]
        if column.type != "category":
            columns[f"x{index}"] = values
            continue
        n_levels = len(column.categories)
        codes = np.where(np.isnan(values) | (values >= n_levels), -1, values).astype(int)
        columns[f"x{index}"] = pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(list(range(n_levels))))
    return pd.DataFrame(columns)


def _row_microseconds(predict: Callable[[pd.DataFrame], Any], frame: pd.DataFrame) -> float:
    times = []
    for index in range(min(N_CALLS, len(frame))):
        row = frame.iloc[index : index + 1]
        start = time.perf_counter()
        predict(row)
        times.append(1e6 * (time.perf_counter() - start))
    return statistics.median(times)


# pylint: disable=import-outside-toplevel,import-error  # libraries take seconds to import, and two are optional


def _fit_lightgbm(frame: pd.DataFrame, target: Any) -> Callable[[pd.DataFrame], Any]:
    import lightgbm

    return lightgbm.LGBMRegressor(verbosity=-1, n_jobs=1).fit(frame, target).predict


def _fit_catboost(frame: pd.DataFrame, target: Any) -> Callable[[pd.DataFrame], Any]:
    import catboost

    categories = [str(name) for name in frame.select_dtypes("category").columns]

    def as_text(rows: pd.DataFrame) -> pd.DataFrame:  # CatBoost refuses missing categories
        return rows.assign(**{name: rows[name].cat.codes.astype(str) for name in categories})

    model = catboost.CatBoostRegressor(verbose=False, allow_writing_files=False, thread_count=1, cat_features=categories)
    model.fit(as_text(frame), target)
    return lambda rows: model.predict(as_text(rows))


def _fit_histogram(frame: pd.DataFrame, target: Any) -> Callable[[pd.DataFrame], Any]:
    from sklearn.ensemble import HistGradientBoostingRegressor

    predict: Callable[[pd.DataFrame], Any] = HistGradientBoostingRegressor().fit(frame, target).predict
    return predict


def _fit_xgboost(frame: pd.DataFrame, target: Any) -> Callable[[pd.DataFrame], Any]:
    from xgboost import XGBRegressor

    predict: Callable[[pd.DataFrame], Any] = XGBRegressor(enable_categorical=True, n_jobs=1).fit(frame, target).predict
    return predict


LIBRARIES: Mapping[str, Callable[[pd.DataFrame, Any], Callable[[pd.DataFrame], Any]]] = {
    "lightgbm": _fit_lightgbm,
    "catboost": _fit_catboost,
    "hist_gradient_boosting": _fit_histogram,
    "xgboost": _fit_xgboost,
}
