"""Print the processor time of a bundle's predictions: milliseconds for requests of different rows, as JSON.

python scripts/benchmarks/prediction_time.py BUNDLE TABLE
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from housing.bundle.bundle import Bundle

N_REQUESTS = {1: 1000, 100: 100, 1000: 30}  # by number of rows


def main() -> None:
    """Measure features, predictions, and predictions with intervals. Each request has rows of its own."""
    bundle = Bundle.read(Path(sys.argv[1]))
    table = np.genfromtxt(sys.argv[2], delimiter=",", skip_header=1)[:, : len(bundle.schema.features)]
    calls = {
        "features": bundle.ensemble.features[0].transform,
        "prediction": bundle.predict,
        "with interval": bundle.predict_with_interval,
    }
    times = {name: [_milliseconds(call, table, rows) for rows in N_REQUESTS] for name, call in calls.items()}
    print(json.dumps(times))


def _milliseconds(call: Callable[[Any], Any], table: Any, rows: int) -> float:
    random = np.random.default_rng(rows)
    times = []
    for _ in range(N_REQUESTS[rows]):
        matrix = table[random.integers(0, len(table), rows)]
        start = time.process_time()
        call(matrix)
        times.append(time.process_time() - start)
    return 1000 * statistics.median(times)


if __name__ == "__main__":
    main()
