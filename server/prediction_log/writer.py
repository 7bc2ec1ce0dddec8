"""The prediction log writer: one JSON line per request, in separate files per worker.

Requests put their entries on a queue, and a thread writes them. A logging configuration can send the lines elsewhere, with
handlers of the logger `housing.predictions`.
"""

import atexit
import logging
import queue
import threading
from typing import Any

import orjson
from prometheus_client import Counter

from housing.server_files.rotating_file import RotatingFile

LOGGER_NAME = "housing.predictions"
FLUSH_SECONDS = 0.05  # the thread waits this long for more entries, unless a batch is full
BATCH_SIZE = 32  # most entries per write; meanwhile the event loop waits for Python's lock, about 0.2 ms for entries of a row
CLOSE_TIMEOUT = 10.0  # seconds to write the queue when the process exits
DROPPED = Counter("housing_log_dropped_total", "Predictions dropped from the log because its queue or its disk was full.")
log = logging.getLogger(__name__)


class FileHandler(logging.Handler):
    """Writes a worker's lines to its own file, in batches that are written completely or not at all."""

    def __init__(self, file: RotatingFile) -> None:
        super().__init__()
        self._file = file
        self._lines: list[bytes] = []
        self._error_reported = False
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Buffer a line for `flush`."""
        self.add(self.format(record).encode())

    def add(self, line: bytes) -> None:
        """Buffer a line for `flush`, without the record of `logging`, which takes longer to make than the line."""
        self._lines.append(line + b"\n")

    def flush(self) -> None:
        """Write the buffered lines. On an error, drop and count them, and log the first of consecutive errors."""
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
                log.error("Cannot write the prediction log: %s", error)
            self._error_reported = True

    def close(self) -> None:
        """Write the buffered lines and close the file."""
        self.flush()
        self._file.close()
        super().close()


class PredictionLog:
    """Queues log entries and writes them in a thread.

    A normal exit writes all entries. `kill -9` loses those of the last FLUSH_SECONDS and those that arrived during the
    last write: never more than `queue_size` plus BATCH_SIZE entries.
    """

    def __init__(self, handler: FileHandler, queue_size: int) -> None:
        self._logger, self._handler = logging.getLogger(LOGGER_NAME), handler
        if not self._logger.handlers:  # otherwise a logging configuration has set the destination
            self._logger.addHandler(handler)
            self._logger.setLevel(logging.INFO)
            self._logger.propagate = False
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._queue_size = queue_size
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prediction log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def write(self, entry: dict[str, Any]) -> None:
        """Queue an entry, which the caller must not change afterwards. Never blocks or raises; a full queue drops it."""
        if self._queue.qsize() >= self._queue_size or self._closing.is_set():
            DROPPED.inc()
        else:
            self._queue.put(entry)

    def close(self) -> None:
        """Write the queued entries and accept no more."""
        if not self._closing.is_set():
            self._closing.set()
            self._queue.put(None)
            self._thread.join(CLOSE_TIMEOUT)
            atexit.unregister(self.close)

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch = [self._queue.get()]
            if self._queue.qsize() < BATCH_SIZE:
                self._closing.wait(FLUSH_SECONDS)
            while len(batch) < BATCH_SIZE and not self._queue.empty():
                batch.append(self._queue.get())
            is_open = None not in batch
            self._write([entry for entry in batch if entry is not None])

    def _write(self, entries: list[dict[str, Any]]) -> None:
        is_direct = self._logger.handlers == [self._handler]
        for entry in entries:
            try:
                line = orjson.dumps(entry, option=orjson.OPT_SERIALIZE_NUMPY)
                if is_direct:
                    self._handler.add(line)
                else:
                    self._logger.info("%s", line.decode())
            except Exception as error:  # pylint: disable=broad-exception-caught  # a custom handler may raise anything
                DROPPED.inc()
                log.error("Cannot log a prediction: %s", error)
        for handler in self._logger.handlers:
            try:
                handler.flush()
            except Exception as error:  # pylint: disable=broad-exception-caught  # this thread must not end
                log.error("Cannot flush the prediction log: %s", error)
