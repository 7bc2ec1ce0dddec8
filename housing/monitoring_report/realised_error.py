"""Realised errors: predictions of a period against the true values that feedback has brought, by version and time.

A true value that was sent twice counts once, with its last value. A temporary database on disk keeps them apart, so that memory
does not grow with their number.
"""

import math
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from housing.feedback.log_reader import Entry
from housing.monitoring_report.measured import Measured, measure_mean, measure_root
from housing.monitoring_report.timeline import Timeline
from housing.server_files.request_id import parse_request_id

PRAGMAS = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -32000;"  # KB in memory
SCHEMA = """
CREATE TABLE labels (
    request TEXT NOT NULL, row INTEGER NOT NULL, key TEXT NOT NULL, bucket INTEGER NOT NULL, arrived REAL NOT NULL,
    error REAL NOT NULL, PRIMARY KEY (request, row)
) STRICT, WITHOUT ROWID;
"""
INSERT = """
INSERT INTO labels VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (request, row) DO UPDATE
SET arrived = excluded.arrived, error = excluded.error WHERE excluded.arrived >= labels.arrived
"""
# Rows of one request may depend on each other: the sums are of requests.
SUMS = """
SELECT {group}, count(*), sum(n), {sums} FROM (
    SELECT {group}, request, count(*) AS n, sum(error) AS e, sum(abs(error)) AS a, sum(error * error) AS s
    FROM labels GROUP BY {group}, request
) GROUP BY {group} ORDER BY {group}
"""
LOSSES = ("e", "a", "s")  # error, absolute error and squared error


@dataclass(frozen=True)
class RealisedError:
    """Errors on true values; prediction minus true value.

    Attributes
    ----------
    labels, requests
        The number of true values, and of the requests that they belong to.
    mean_error, mae, rmse
        With 95 % intervals, for which requests are taken as independent.
    """

    labels: int
    requests: int
    mean_error: Measured
    mae: Measured
    rmse: Measured


class LabelStore:
    """The true values of a period."""

    def __init__(self, connection: sqlite3.Connection, timeline: Timeline) -> None:
        self._connection, self._timeline = connection, timeline

    def add(self, rows: Iterable[tuple[str, Entry]]) -> None:
        """Add joined rows with the keys of their versions."""
        self._connection.executemany(INSERT, self._values(rows))

    def _values(self, rows: Iterable[tuple[str, Entry]]) -> Iterator[tuple[object, ...]]:
        for key, row in rows:
            bucket, error = self._timeline.bucket(parse_request_id(row["id"])[0]), float(row["prediction"]) - float(row["value"])
            yield row["id"], row["row"], key, bucket, row["time"], error

    def by_version(self) -> dict[str, RealisedError]:
        """Return the errors by key of the version."""
        return {key: _realised(sums) for key, *sums in self._select("key")}

    def by_bucket(self) -> dict[str, dict[int, RealisedError]]:
        """Return the errors by key of the version and bucket of the timeline."""
        errors: dict[str, dict[int, RealisedError]] = {}
        for key, bucket, *sums in self._select("key, bucket"):
            errors.setdefault(key, {})[bucket] = _realised(sums)
        return errors

    def _select(self, group: str) -> sqlite3.Cursor:
        sums = ", ".join(f"sum({loss}), sum({loss} * {loss}), sum({loss} * n)" for loss in LOSSES)
        return self._connection.execute(SUMS.format(group=group, sums=f"sum(n * n), {sums}"))


@contextmanager
def label_store(timeline: Timeline) -> Iterator[LabelStore]:
    """Open an empty store, which is removed when the block ends."""
    with closing(sqlite3.connect("", isolation_level=None)) as connection:  # SQLite's name for a temporary file
        connection.executescript(f"{PRAGMAS} {SCHEMA}")
        yield LabelStore(connection, timeline)


def _realised(sums: list[float]) -> RealisedError:
    requests, labels, squares, *of_losses = sums
    means = [
        _mean(int(requests), labels, squares, of_losses[start : start + 3]) for start in range(0, len(of_losses), 3)
    ]  # in the order of LOSSES
    mean_error, mae, mean_square = means
    return RealisedError(int(labels), int(requests), mean_error, mae, measure_root(mean_square))


def _mean(requests: int, labels: float, squares: float, sums: list[float]) -> Measured:
    """Return the mean loss of rows that come in requests: a ratio estimator (Cochran, "Sampling Techniques", 1977, 6.3)."""
    total, square, product = sums
    mean = total / labels
    variance = max(square - 2 * mean * product + mean**2 * squares, 0.0) / labels**2
    return measure_mean(mean, math.sqrt(variance * requests / max(requests - 1, 1)), requests)
