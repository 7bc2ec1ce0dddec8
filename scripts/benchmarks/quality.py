"""Model quality: errors on test rows of models, feature sets and presets."""

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from scripts.benchmarks.processes import make_home, newest_card, run

P1 = ("split=random", "split.seeds=[42,42]")
PAPERS = ("split=random", "split.seeds=[0,1]")
PRESETS = {"default": 5, "best": 3}  # and the number of seeds
N_BLOCK_SPLITS = 5


def print_quality() -> None:
    """Print the errors of models on split P1, then of the presets on P1, on the papers' split and on spatial blocks."""
    print("| model | features | validation RMSE | test RMSE | fit s |\n|---|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as directory:
        home = make_home(directory)
        for features in ("none", "static", "geo"):
            for model in ("linear", "decision_tree", "xgboost"):
                metrics, tested = _score(home, f"model={model}", f"features={features}", "refit=false", "interval=none", *P1)
                seconds = f"{metrics['fit_seconds']:.2f}"
                print(f"| {model} | {features} | {metrics['rmse']:.4f} | {tested['rmse']:.4f} | {seconds} |", flush=True)
        for preset, seeds in PRESETS.items():
            _print_preset(home, preset, seeds)


def _print_preset(home: str, preset: str, seeds: int) -> None:
    """Print the mean errors of a preset on each split, over model seeds or over different blocks."""
    print(
        f"\n| experiment={preset} | test RMSE | each | 90 % covers | least of an income quintile | width | fit s | row ms | MB |"
    )
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|", flush=True)
    splits: dict[str, list[tuple[str, ...]]] = {
        f"P1, {seeds} seeds": [(*P1, f"seed={seed}") for seed in range(seeds)],
        f"the papers' split, {seeds} seeds": [(*PAPERS, f"seed={seed}") for seed in range(seeds)],
        f"blocks, {N_BLOCK_SPLITS} seeds": [("split=blocks", f"split.seed={seed}") for seed in range(N_BLOCK_SPLITS)],
    }
    for split, options_of_runs in splits.items():
        runs = [_score(home, f"experiment={preset}", *options) for options in options_of_runs]
        cost = {
            key: statistics.mean(metrics[key] for metrics, _ in runs) for key in ("refit_seconds", "latency_us", "model_bytes")
        }
        tests = {key: [tested[key] for _, tested in runs] for key in ("rmse", "coverage", "least", "width")}
        means = {key: statistics.mean(values) for key, values in tests.items()}
        costs = f"{cost['refit_seconds']:.1f} | {cost['latency_us'] / 1000:.2f} | {cost['model_bytes'] / 1e6:.1f}"
        errors = " ".join(f"{value:.4f}" for value in tests["rmse"])
        intervals = f"{means['coverage']:.3f} | {min(tests['least']):.3f} | {means['width']:.3f}"
        print(f"| {split} | **{means['rmse']:.4f}** | {errors} | {intervals} | {costs} |", flush=True)


def _score(home: str, *options: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train once; return the metrics of the run, and its scores on the test rows."""
    run("-m", "housing.train", *options, "figures=false", home=home)
    card = newest_card(Path(home))
    split = [option for option in options if option.startswith("split")]
    _, scores = run("-m", "scripts.benchmarks.score_test_rows", card["run_id"], *split, home=home)
    return card["metrics"], json.loads(scores)
