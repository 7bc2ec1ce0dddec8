"""Texts: validation scores of a column left out, as a category and as a text, and the time to compute a text's numbers."""

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from housing.data.text_fitting import fit_projection
from scripts.benchmarks.encodings import MODELS, validation_rmse

COMPONENTS = (16, 32, 64)
LENGTHS, N_TIMES = (20, 200, 2000, 10_000), 200
ADVERTS = """name: adverts
path: {home}/adverts.csv
columns:
  title: {{type: text}}
  area: {{type: float}}
  price: {{type: float, role: target}}
"""
WORDS = (
    ("bright", "dark", "renovated", "quiet", "spacious", "old", "modern"),
    ("flat", "house", "loft", "studio", "attic flat"),
    ("by the lake", "near the station", "in the old town", "on a main road", "with a garden", "above a bakery"),
    ("with parking", "with a balcony", "without a lift", "for students", "from the owner"),
)


def print_texts(arguments: Sequence[str] = ()) -> None:
    """Print validation RMSEs, means of several splits, and then the processor time of texts.

    Parameters
    ----------
    arguments
        A folder with config files, and the names of tables in its folder `data`, each with the name of its text, such as
        cars=name. Without any, a generated table.
    """
    with tempfile.TemporaryDirectory() as home:
        folder, *tables = arguments or (home, "adverts=title")
        if not tables or not all("=" in table for table in tables):
            sys.exit("error: texts needs a folder of config files, and tables with their text, such as: my cars=name")
        if not arguments:
            _write_adverts(Path(home))
        print(f"| table | model | left out | category | {' | '.join(f'text, {count}' for count in COMPONENTS)} |")
        print(f"|---|---|---:|---:|{'---:|' * len(COMPONENTS)}", flush=True)
        for table, column in (argument.split("=", 1) for argument in tables):
            for model in MODELS:
                print(f"| {table} | {model} | {' | '.join(_scores(Path(folder), table, model, column))} |", flush=True)
    _print_times()


def _scores(folder: Path, table: str, model: str, column: str) -> list[str]:
    declarations = [
        (f"+data.columns.{column}.role=ignore",),
        (f"data.columns.{column}.type=category", f"+data.columns.{column}.categories=auto"),
        *((f"+data.columns.{column}.components={count}",) for count in COMPONENTS),
    ]
    common = (f"data={table}", f"model={model}", "target.transform=auto", "features.encoding.method=target_mean_and_share")
    return [f"{float(f'{validation_rmse(folder, *common, *each):.4g}'):,g}" for each in declarations]


def _print_times() -> None:
    print("\n| characters | milliseconds |\n|---:|---:|")
    titles = _titles(2000)
    projection, text = fit_projection(titles, 32), " ".join(titles)
    for length in LENGTHS:
        seconds = []
        for _ in range(N_TIMES):
            start = time.process_time()
            projection.encode(text[:length])
            seconds.append(time.process_time() - start)
        print(f"| {length:,} | {1e3 * statistics.median(seconds):.3f} |", flush=True)


def _titles(n_rows: int) -> list[str]:
    random = np.random.default_rng(0)
    chosen = [random.choice(words, n_rows) for words in WORDS]
    return [" ".join(words) for words in zip(*chosen, strict=True)]


def _write_adverts(home: Path) -> None:
    """Write a table of homes whose price depends on the area and on each word of a title of its own."""
    random, titles = np.random.default_rng(1), _titles(2000)
    effects = {words: random.normal(0, 40) for choices in WORDS for words in choices}
    area = random.uniform(20, 150, len(titles)).round(1)
    worth = [sum(effect for words, effect in effects.items() if words in title) for title in titles]
    price = (300 + 2 * area + worth + random.normal(0, 30, len(titles))).round(2)
    (home / "data").mkdir(exist_ok=True)
    (home / "data" / "adverts.yaml").write_text(ADVERTS.format(home=home), encoding="utf-8")
    pd.DataFrame({"title": titles, "area": area, "price": price}).to_csv(home / "adverts.csv", index=False)
