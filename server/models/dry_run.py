"""The trial of a bundle: what a worker does with one, before any worker has it."""

import tempfile
from pathlib import Path

import numpy as np
import orjson

from housing.bundle.bundle import Bundle
from server.metrics.model_metrics import ModelMetrics
from server.validation.rows import RowValidator


def dry_run(bundle: Bundle, n_rows: int) -> None:
    """Make the check and the counters of a bundle, and answer and count a request of so many rows.

    Raises whatever a worker would raise.
    """
    orjson.dumps(bundle.card)  # as /model tells it
    RowValidator(bundle.schema)
    golden = bundle.schema.encode_records(bundle.golden["rows"])
    matrix = np.resize(golden, (n_rows, golden.shape[1]))  # they come again and again
    with tempfile.TemporaryDirectory(prefix="housing-") as place:
        counts = ModelMetrics(Path(place), 0, Path(place) / "bundle", bundle, "0")
        counts.add(matrix, *bundle.predict_with_interval(matrix).values())
    bundle.predict_with_interval(bundle.background)  # as /explain asks for them
