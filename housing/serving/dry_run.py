"""The dry run of a bundle: exercise it as a worker does, before any worker loads it."""

import tempfile
from pathlib import Path

import numpy as np
import orjson

from housing.bundle.bundle import Bundle
from server.metrics.model_metrics import ModelMetrics
from server.validation.rows import RowValidator


def dry_run(bundle: Bundle, n_rows: int) -> None:
    """Create the bundle's validator and metrics, and predict and count a request of `n_rows` rows.

    Raises whatever a worker would raise.
    """
    orjson.dumps(bundle.card)  # as /model does
    RowValidator(bundle.schema)
    golden = bundle.schema.encode_records(bundle.golden["rows"])
    matrix = np.resize(golden, (n_rows, golden.shape[1]))  # repeats the golden rows
    with tempfile.TemporaryDirectory(prefix="housing-") as scratch:
        metrics = ModelMetrics(Path(scratch), 0, Path(scratch) / "bundle", bundle, "0")
        metrics.add(matrix, *bundle.predict_with_interval(matrix).values())
    bundle.predict_with_interval(bundle.background)  # as /explain does
