"""Logged rows whose true values are known: the candidate's errors beside those of the version that answered."""

import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from housing.data.units import Units
from housing.feedback.log_reader import Entry, LogFilter, read_joined_rows
from housing.schema.column import Matrix, Vector
from housing.server_files.request_id import parse_request_id
from housing.traffic.candidate import Candidate
from housing.traffic.logged_rows import Batch, Batcher

UNITS = "independent groups of labels"
ID_TYPE, MAX_ROW = "S24", 2**31  # a request ID has 24 characters

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledRows:
    """Rows with their true value. If it was sent several times, the last one counts, as it does for `housing.ingest`.

    Attributes
    ----------
    request, row_hash
        The request of each row, and a hash of its features.
    arrived
        When the true value arrived (Unix seconds).
    actual, logged, candidate
        The true value, and the predictions of the version that answered and of the candidate.
    """

    request: NDArray[np.bytes_]
    row_hash: NDArray[np.int64]
    arrived: Vector
    actual: Vector
    logged: Vector
    candidate: Vector

    def __len__(self) -> int:
        return len(self.actual)

    def take(self, rows: NDArray[Any]) -> "LabelledRows":
        """Return some of the rows, by index or mask."""
        return LabelledRows(*(values[rows] for values in vars(self).values()))

    @property
    def units(self) -> Units:
        """Groups of rows that may depend on each other: rows of one request, and rows with equal features."""
        # pylint: disable=import-outside-toplevel  # the shadow needs no scipy
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        nodes = [np.unique(values, return_inverse=True)[1] for values in (self.request, self.row_hash)]
        requests, features = nodes
        n_requests = int(requests.max(initial=-1)) + 1
        size = n_requests + int(features.max(initial=-1)) + 1
        graph = coo_array((np.ones(len(self)), (requests, n_requests + features)), shape=(size, size))
        return Units(UNITS, connected_components(graph, directed=False)[1][requests])


def hash_rows(matrix: Matrix) -> NDArray[np.int64]:
    """Return a hash of each row. Equal rows have equal hashes; all missing values are alike."""
    same = np.where(np.isnan(matrix), np.nan, matrix + 0.0)  # -0.0 becomes 0.0
    return np.fromiter((hash(row.tobytes()) for row in same), dtype=np.int64, count=len(same))


def read_labelled_rows(folder: Path, log_filter: LogFilter, candidate: Candidate) -> tuple[LabelledRows, int]:
    """Predict the joined rows of a log folder. Return those that the candidate accepts, and the number of the others.

    The filter selects by the time of the request and by the version that answered it.

    Memory grows by some 70 bytes for each true value.
    """
    parts = list(predict_joined_rows(read_joined_rows(folder, log_filter.since), log_filter, candidate))
    if not parts:
        parts = [_predict(Batch("", (), [], np.empty(0)), [], candidate)]
    rows, positions = zip(*parts, strict=True)
    merged = LabelledRows(*map(np.concatenate, zip(*(vars(part).values() for part in rows), strict=True)))
    position = np.concatenate(positions)
    order = np.lexsort((merged.arrived, position, merged.request))  # equal requests and rows in order of their time
    is_last = np.ones(len(order), dtype=bool)
    is_last[:-1] = (merged.request[order][1:] != merged.request[order][:-1]) | (position[order][1:] != position[order][:-1])
    latest = merged.take(np.sort(order[is_last]))
    is_refused = np.isnan(latest.candidate)
    return latest.take(~is_refused), int(is_refused.sum())


def predict_joined_rows(
    joined: Iterable[Entry], log_filter: LogFilter, candidate: Candidate
) -> Iterator[tuple[LabelledRows, NDArray[np.int64]]]:
    """Yield joined rows in batches, with the position of each in its request. The prediction of a refused row is NaN."""
    return (_predict(batch, labels, candidate) for batch, labels in _batches(joined, log_filter))


def _batches(joined: Iterable[Entry], log_filter: LogFilter) -> Iterator[tuple[Batch, list[Entry]]]:
    """Yield batches of joined rows that share version and columns, with the joined rows themselves."""
    batcher, labels = Batcher(), dict[tuple[str, tuple[str, ...]], list[Entry]]()
    for row in joined:
        if not is_sound(row):
            log.warning("Skipped a damaged joined row: %.80r", row)
        elif (
            log_filter.version in (None, row["version"]) and log_filter.since <= parse_request_id(row["id"])[0] < log_filter.until
        ):
            columns = tuple(row["columns"])
            batcher.add({**row, "columns": columns, "rows": [list(row["columns"].values())], "predictions": [row["prediction"]]})
            labels.setdefault((row["version"], columns), []).append(row)
            if batcher.is_full:
                yield from _drain(batcher, labels)
    yield from _drain(batcher, labels)


def _drain(batcher: Batcher, labels: dict[tuple[str, tuple[str, ...]], list[Entry]]) -> Iterator[tuple[Batch, list[Entry]]]:
    for batch in batcher.drain():
        yield batch, labels.pop((batch.version, batch.columns))


def is_sound(row: Entry) -> bool:
    """Return whether a joined row has a request ID, a row number and numbers where they belong."""
    numbers = [row[name] for name in ("value", "prediction", "time")]
    if not set(map(type, numbers)) <= {int, float} or not isinstance(row["version"], str):
        return False
    if not isinstance(row["row"], int) or isinstance(row["row"], bool):
        return False
    try:
        parse_request_id(row["id"])
    except (TypeError, ValueError):
        return False
    return 0 <= row["row"] <= MAX_ROW


def _predict(batch: Batch, labels: list[Entry], candidate: Candidate) -> tuple[LabelledRows, NDArray[np.int64]]:
    predicted = candidate.predict(batch)
    row_hash, predictions = np.zeros(len(labels), dtype=np.int64), np.full(len(labels), np.nan)
    row_hash[predicted.accepted], predictions[predicted.accepted] = hash_rows(predicted.matrix), predicted.predictions
    rows = LabelledRows(
        np.array([label["id"] for label in labels], dtype=ID_TYPE),
        row_hash,
        _column(labels, "time"),
        _column(labels, "value"),
        _column(labels, "prediction"),
        predictions,
    )
    return rows, np.array([label["row"] for label in labels], dtype=np.int64)


def _column(labels: Collection[Entry], name: str) -> Vector:
    return np.array([label[name] for label in labels], dtype=np.float64)
