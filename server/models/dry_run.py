"""The trial of a bundle: what a worker does with one, before any worker has it."""

import tempfile
from pathlib import Path

import numpy as np
import orjson

from housing.bundle.bundle import Bundle
from server.metrics.model_metrics import Counts
from server.validation.rows import Check


def serve(bundle: Bundle, rows: int) -> None:
    """Make the check and the counters of a bundle, and answer and count a request of so many rows.

    Raises whatever a worker would raise.
    """
    orjson.dumps(bundle.card)  # as /model tells it
    Check(bundle.schema)
    golden = bundle.schema.encode_records(bundle.golden["rows"])
    matrix = np.resize(golden, (rows, golden.shape[1]))  # they come again and again
    with tempfile.TemporaryDirectory(prefix="housing-") as place:
        counts = Counts(Path(place), 0, Path(place) / "bundle", bundle, "0")
        counts.add(matrix, *bundle.answers(matrix).values())
    bundle.answers(bundle.background)  # as /explain asks for them
