"""Program that fits rows over the workers of a scheduler: ADDRESS ROWS COLUMNS. Prints the RMSE on other rows and their spread.

The rows are generated chunk by chunk, so that the table exists nowhere as a whole.
"""

import sys
from dataclasses import dataclass

import numpy as np
import xgboost
from numpy.typing import NDArray

from housing.cluster.connection import ClusterSettings, connected
from housing.cluster.fit_workers import FitWorkers
from housing.estimators.round_reporter import RoundReporter
from housing.estimators.xgboost_chunks import ChunkedRows
from housing.features.pipeline import Features
from housing.schema.table_schema import Schema
from housing.streaming.column_chunks import ColumnChunks
from tests.support.tables import NO_BLOCKS

CHUNK_ROWS = 25_000


@dataclass(frozen=True)
class GeneratedRows:
    """Rows of normal variates, which are generated when a chunk of them is read."""

    n_rows: int
    n_columns: int

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.n_rows

    def __getitem__(self, rows: slice) -> NDArray[np.float64]:
        """Return a chunk."""
        return np.random.default_rng(rows.start).normal(size=(rows.stop - rows.start, self.n_columns))


def target_of(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the target of rows."""
    return np.asarray(10 * rows[:, 0] + 5 * rows[:, 1])


def main() -> None:
    """Fit, and print the result."""
    address, n_rows, n_columns = sys.argv[1], *map(int, sys.argv[2:])
    names = [f"x{index}" for index in range(n_columns)]
    declared = {**{name: {"type": "float"} for name in names}, "y": {"type": "float", "role": "target"}}
    features = Features(Schema.from_dict({"name": "generated", "columns": declared}), NO_BLOCKS, "native")
    rows, estimator = GeneratedRows(n_rows, n_columns), xgboost.XGBRegressor(n_estimators=5, max_depth=4, learning_rate=0.5)
    chunks = [slice(start, min(start + CHUNK_ROWS, n_rows)) for start in range(0, n_rows, CHUNK_ROWS)]
    target = np.concatenate([target_of(rows[chunk]) for chunk in chunks])
    training = ChunkedRows(ColumnChunks(features, rows, CHUNK_ROWS), target, None)
    settings = ClusterSettings(address, workers=2, memory_gb=None, timeout_seconds=60)
    with connected(settings) as client:
        FitWorkers(client, settings).fit(estimator, training, None, 0, RoundReporter(lambda done, score: None))
    other = np.random.default_rng(1).normal(size=(CHUNK_ROWS, n_columns))
    errors = estimator.predict(other.astype(np.float32)) - target_of(other)
    print(float(np.sqrt(np.mean(errors**2))), float(target_of(other).std()))


if __name__ == "__main__":
    main()
