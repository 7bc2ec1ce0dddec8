"""Description of a large file: processor time and memory of `housing.describe`."""

import resource
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from scripts.benchmarks.processes import measure

N_ROWS, N_LEVELS, N_DAYS = 1_000_000, 100_000, 3_000


def print_description() -> None:
    """Print what the description of a generated file of ten columns costs."""
    with tempfile.TemporaryDirectory() as home:
        file = Path(home, "large.csv")
        _write(file)
        _, memory = measure(["-m", "housing.describe", f"--config-dir={home}", f"file={file}", "target=y"], home)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)  # of the only child
        print("| rows | columns | MB of the file | processor time, s | memory, MB |\n|---:|---:|---:|---:|---:|")
        size, seconds = file.stat().st_size / 1e6, used.ru_utime + used.ru_stime
        print(f"| {N_ROWS:,} | 10 | {size:.0f} | {seconds:.0f} | {memory:.0f} |")


def _write(file: Path) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(N_ROWS, 4)).round(4), columns=["a", "b", "c", "y"])
    frame["id"], frame["number"] = np.arange(N_ROWS), random.integers(0, 1000, N_ROWS)
    frame["kind"], frame["known"] = random.choice(["x", "y", "z"], N_ROWS), random.choice(["yes", "no"], N_ROWS)
    frame["street"] = [f"street {number}" for number in random.integers(0, N_LEVELS, N_ROWS)]
    frame["sold"] = pd.Timestamp("2015-01-01") + pd.to_timedelta(random.integers(0, N_DAYS, N_ROWS), unit="D")
    frame.to_csv(file, index=False, date_format="%Y-%m-%d")
