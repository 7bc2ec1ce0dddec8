"""The prediction log: one JSON line for each request, in one file for each worker.

python -m server.log read FOLDER --since 2026-11-24T10:00:00+00:00 --out predictions.parquet

A request only puts its entry on a queue; a thread writes. Lines go through Python's `logging` (logger
`housing.predictions`), so that a logging configuration made before the app can send them elsewhere.
"""

import atexit
import logging
import queue
import threading
from typing import Any

import orjson
from prometheus_client import Counter

from server.prediction_log.rotating_file import RotatingFile

LOGGER_NAME = "housing.predictions"


FLUSH_SECONDS = 0.05  # seconds that the thread waits for more to write at once, where there is not a batch already


BATCH_SIZE = 256  # entries written at once, at most


CLOSE_TIMEOUT = 10.0  # seconds for what is queued when the process ends


DROPPED = Counter("housing_log_dropped_total", "Predictions that are not in the log: its queue or its disk was full.")


log = logging.getLogger(__name__)


class FileHandler(logging.Handler):
    """Writes a worker's lines to its own file, in batches that are written whole or not at all."""

    def __init__(self, file: RotatingFile) -> None:
        super().__init__()
        self._file = file
        self._lines: list[bytes] = []
        self._error_reported = False
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line; `flush` writes it."""
        self._lines.append(self.format(record).encode() + b"\n")

    def flush(self) -> None:
        """Write what was taken. Where that fails it is dropped, counted, and told once until it works again."""
        self.acquire()
        try:
            lines, self._lines = self._lines, []
            if lines:
                self._write(lines)
        finally:
            self.release()

    def _write(self, lines: list[bytes]) -> None:
        try:
            self._file.append(b"".join(lines))
            self._error_reported = False
        except OSError as error:
            DROPPED.inc(len(lines))
            if not self._error_reported:
                log.error("predictions are not logged now: %s", error)
            self._error_reported = True

    def close(self) -> None:
        """Write what was taken, and close the file."""
        self.flush()
        self._file.close()
        super().close()


class PredictionLog:
    """Takes entries of requests, and has them written by a thread.

    A process that ends in order has written all. `kill -9` loses what is queued and not yet written: what came in the last
    LINGER seconds and while the batch before was being written, never more than `queue_size` and one BATCH of entries.
    """

    def __init__(self, handler: logging.Handler, queue_size: int) -> None:
        self._logger = logging.getLogger(LOGGER_NAME)
        if not self._logger.handlers:  # else a logging configuration has said where lines go
            self._logger.addHandler(handler)
            self._logger.setLevel(logging.INFO)
            self._logger.propagate = False
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._queue_size = queue_size
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="write the prediction log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def write(self, entry: dict[str, Any]) -> None:
        """Have an entry written, which the caller changes no more. Never waits and never raises: a full queue drops it."""
        if self._queue.qsize() >= self._queue_size or self._closing.is_set():
            DROPPED.inc()
        else:
            self._queue.put(entry)

    def close(self) -> None:
        """Write what is queued, and take no more."""
        if not self._closing.is_set():
            self._closing.set()
            self._queue.put(None)
            self._thread.join(CLOSE_TIMEOUT)
            atexit.unregister(self.close)

    def _run(self) -> None:
        more = True
        while more:
            batch = [self._queue.get()]
            if self._queue.qsize() < BATCH_SIZE:
                self._closing.wait(FLUSH_SECONDS)
            while len(batch) < BATCH_SIZE and not self._queue.empty():
                batch.append(self._queue.get())
            more = None not in batch
            self._write([entry for entry in batch if entry is not None])

    def _write(self, entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            try:
                self._logger.info("%s", orjson.dumps(entry, option=orjson.OPT_SERIALIZE_NUMPY).decode())
            except Exception as error:  # pylint: disable=broad-exception-caught  # a user's handler may raise anything
                DROPPED.inc()
                log.error("a prediction cannot be logged: %s", error)
        for handler in self._logger.handlers:
            try:
                handler.flush()
            except Exception as error:  # pylint: disable=broad-exception-caught  # this thread must live on
                log.error("the prediction log cannot be flushed: %s", error)
