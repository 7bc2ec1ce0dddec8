"""Models on the columns of the California table: score, cost, and the tree walker beside ONNX Runtime."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir

from housing.bundle.bundle import Bundle
from housing.bundle.onnx_model import OnnxModel, OnnxRuntimeModel
from housing.core.config import CONF
from housing.data.split import Split, split
from housing.data.table import Table, load
from housing.training.build import BuildSettings, build

MODELS = ("linear", "ridge", "knn", "svr", "decision_tree", "hist_gradient_boosting", "xgboost", "lightgbm", "catboost")
BOOSTED = ("xgboost", "lightgbm", "catboost")
N_ROWS = (1, 10, 100, 1000)
N_CALLS = 200


def print_models() -> None:
    """Print RMSE, cost of fit and of a row for each model, then the times of both engines of trees."""
    print("| `model=` | validation RMSE | fit and export, processor s | one row, µs | bundle, MB |\n|---|---:|---:|---:|---:|")
    graphs: dict[str, tuple[OnnxModel, Any]] = {}
    for model in MODELS:
        bundle, metrics, seconds, table, parts = _build(model)
        cells = (
            f"{metrics['rmse']:.4f}",
            f"{seconds:.1f}",
            f"{metrics['latency_us']:.0f}",
            f"{metrics['model_bytes'] / 1e6:.2f}",
        )
        print(f"| `{model}` | {' | '.join(cells)} |", flush=True)
        graph = bundle.ensemble.members[0].estimator
        if model in BOOSTED and isinstance(graph, OnnxModel):
            graphs[model] = graph, bundle.ensemble.features[0].transform(table.matrix[parts.valid])
    print("\n| trees of | rows | ONNX Runtime, µs | the walker, µs | times |\n|---|---:|---:|---:|---:|")
    for model, (graph, columns) in graphs.items():
        _print_engines(model, graph, columns)


def _build(model: str) -> tuple[Bundle, dict[str, float], float, Table, Split]:
    overrides = [f"model={model}", "features=none", "interval=none", "refit=false", "n_threads=1"]
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose("train", overrides)
    table = load(cfg.data)
    parts = split(table, cfg.split)
    settings = BuildSettings.from_config(cfg)
    start = time.process_time()
    bundle, metrics = build(settings, table, parts, run_id="none")
    return bundle, metrics, time.process_time() - start, table, parts


def _print_engines(model: str, graph: OnnxModel, columns: Any) -> None:
    engines = OnnxRuntimeModel(graph.graph), graph
    assert graph.uses_tree_walker
    for n_rows in N_ROWS:
        rows = columns[np.arange(n_rows) % len(columns)]
        assert engines[0].predict(rows).tobytes() == engines[1].predict(rows).tobytes()
        slow, fast = (_microseconds(engine.predict, rows) for engine in engines)
        print(f"| `{model}` | {n_rows} | {slow:.1f} | {fast:.1f} | {slow / fast:.1f} |", flush=True)


def _microseconds(predict: Callable[[Any], Any], rows: Any) -> float:
    """Return the median processor time of a call."""
    times = []
    for _ in range(max(10, N_CALLS // len(rows))):
        start = time.process_time_ns()
        predict(rows)
        times.append((time.process_time_ns() - start) / 1000)
    return statistics.median(times)
