"""The prediction log: one JSON line for each request, in one file for each worker.

python -m server.log read FOLDER --since 2026-11-24T10:00:00+00:00 --out predictions.parquet

A request only puts its entry on a queue; a thread writes. Lines go through Python's `logging` (logger
`housing.predictions`), so that a logging configuration made before the app can send them elsewhere.
"""

import atexit
import logging
import os
import queue
import sys
import threading
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import Counter

LOGGER = "housing.predictions"
LINGER = 0.05  # seconds that the thread waits for more to write at once
BATCH = 256  # entries written at once, at most
CLOSING = 10.0  # seconds for what is queued when the process ends

DROPPED = Counter("housing_log_dropped_total", "Predictions that are not in the log: its queue or its disk was full.")

log = logging.getLogger(__name__)


class RotatingFile(logging.Handler):
    """Writes a worker's lines to its own file, in batches that are written whole or not at all.

    The file is put aside when it would grow beyond `max_bytes`, and when the day (UTC) ends. Of those put aside the newest
    `keep` of this worker stay; none stays longer than `days`.
    """

    def __init__(self, folder: Path, slot: int, max_bytes: int, keep: int, days: int) -> None:
        super().__init__()
        self._folder, self._slot, self._max_bytes, self._keep, self._days = folder, slot, max_bytes, keep, days
        self._path = folder / f"predictions-{slot}.jsonl"
        self._handle: int | None = None
        self._size, self._day = 0, date.min
        self._lines: list[bytes] = []
        self._told = False
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
            self._append(b"".join(lines))
            self._told = False
        except OSError as error:
            DROPPED.inc(len(lines))
            if not self._told:
                log.error("predictions are not logged now: %s", error)
            self._told = True

    def _append(self, data: bytes) -> None:
        handle = self._open()
        if self._size and (self._size + len(data) > self._max_bytes or self._day != _today()):
            self._put_aside()
            handle = self._open()
        try:
            if os.write(handle, data) < len(data):
                raise OSError(f"no room for {len(data)} bytes in {self._path}")
        except OSError:
            os.ftruncate(handle, self._size)  # no half line stays; this file has no other writer
            raise
        self._size += len(data)

    def _open(self) -> int:
        if self._handle is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            status = os.fstat(self._handle)
            self._size = status.st_size
            self._day = datetime.fromtimestamp(status.st_mtime, UTC).date() if self._size else _today()
            if self._size and os.pread(self._handle, 1, self._size - 1) != b"\n":
                self._size += os.write(self._handle, b"\n")  # a predecessor was killed in the middle of a line
        return self._handle

    def _put_aside(self) -> None:
        """Rename the file, with the time in its name: all in it was written before."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self._path.rename(self._folder / f"predictions-{self._slot}-{stamp}.jsonl")
        self._let_go()
        self._remove_old()

    def _let_go(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _remove_old(self) -> None:
        oldest = time.time() - self._days * 86400
        mine = sorted(self._folder.glob(f"predictions-{self._slot}-*.jsonl"), reverse=True)
        for path in mine[self._keep :]:
            path.unlink(missing_ok=True)
        for path in self._folder.glob("predictions-*-*.jsonl"):
            try:
                if path.stat().st_mtime < oldest:
                    path.unlink()
            except FileNotFoundError:
                pass  # another worker was quicker

    def close(self) -> None:
        """Write what was taken, and close the file."""
        self.flush()
        self._let_go()
        super().close()


def _today() -> date:
    return datetime.now(UTC).date()


class PredictionLog:
    """Takes entries of requests, and has them written by a thread.

    A process that ends in order has written all. `kill -9` loses what is queued and not yet written: what came in the last
    LINGER seconds and while the batch before was being written, never more than `queue_size` and one BATCH of entries.
    """

    def __init__(self, handler: logging.Handler, queue_size: int) -> None:
        self._logger = logging.getLogger(LOGGER)
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
            self._thread.join(CLOSING)
            atexit.unregister(self.close)

    def _run(self) -> None:
        more = True
        while more:
            batch = [self._queue.get()]
            self._closing.wait(LINGER)
            while len(batch) < BATCH and not self._queue.empty():
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


if __name__ == "__main__":
    from server.log_reading import main

    sys.exit(main())
