"""The model in use, swapped between requests when the puller publishes another."""

import ctypes
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from housing.bundle.bundle import Bundle
from housing.core.errors import BundleError
from housing.schema.column import Matrix, Record, Vector
from server.core import releases
from server.metrics.model_metrics import ModelMetrics
from server.validation.rows import RowValidator

MetricsFactory = Callable[[Path, Bundle, str], ModelMetrics]


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """A bundle, where it came from, the check of rows that was made from its schema, and what is counted of it."""

    bundle: Bundle
    release: dict[str, Any]
    validator: RowValidator
    metrics: ModelMetrics

    @property
    def info(self) -> dict[str, Any]:
        """Which model this is, as each answer says."""
        return {"model": self.release["model"], "version": self.release["version"]}

    @property
    def example(self) -> Record:
        """A row that can be sent as it is: the golden row in the middle of the predictions."""
        rows: list[Record] = self.bundle.golden["rows"]
        return rows[len(rows) // 2]

    def predict(self, rows: Matrix, batch_size: int) -> Vector:
        """Predict rows of the schema's matrix, `most` at once: so many were tried when the bundle was proven."""
        pieces = np.array_split(rows, range(batch_size, len(rows), batch_size))
        return np.concatenate([self.bundle.predict(piece) for piece in pieces])

    @classmethod
    def read(cls, folder: Path, metrics_factory: MetricsFactory) -> "Model":
        """Read a published version. Raises BundleError where it is damaged."""
        bundle, served = Bundle.read(folder / releases.BUNDLE), releases.release_info(folder)
        return cls(bundle, served, RowValidator(bundle.schema), metrics_factory(folder, bundle, served["version"]))


class CurrentModel:
    """Holds the model in use; a thread looks for a newly published one and loads it before it lets go of the old."""

    def __init__(self, folder: Path, poll_seconds: float, metrics_factory: MetricsFactory) -> None:
        self._folder, self._poll_seconds, self._metrics_factory = folder, poll_seconds, metrics_factory
        self._last_release: tuple[Path, int] | None = None
        self._model: Model | None = None
        self._unavailable_reason = "nothing is published yet; promote a model: python -m housing.promote"
        self._lock = threading.Lock()
        self._reload_if_new()
        threading.Thread(target=self._poll_forever, name="look for a new model", daemon=True).start()

    def get(self) -> Model:
        """Give the model in use. Raises BundleError, which says why there is none."""
        if self._model is None:
            self._reload_if_new()  # another worker may have said already that it is ready
        if self._model is None:
            raise BundleError(self._unavailable_reason)
        return self._model

    def _reload_if_new(self) -> None:
        """Load what is published, where it is not what was seen last."""
        with self._lock:
            newest = releases.current_release(self._folder)
            if newest is None:
                return
            seen = (newest, newest.stat().st_mtime_ns)  # a damaged one comes again under its name
            if seen == self._last_release:
                return
            try:
                self._model = Model.read(newest, self._metrics_factory)
                _trim_memory()
            except Exception as error:  # pylint: disable=broad-exception-caught  # no new model may end the one in use
                self._unavailable_reason = "what is published is damaged; the server's log says where"
                log.error("refused, the model in use stays: %s: %s", type(error).__name__, error)
                if isinstance(error.__cause__ or error, OSError):  # a bundle tells of it as its own error
                    return  # the disk, or a free file descriptor, may be back at the next look
            self._last_release = seen

    def _poll_forever(self) -> None:
        while True:
            time.sleep(self._poll_seconds)
            try:
                self._reload_if_new()
            except OSError as error:
                log.error("the published model cannot be read now: %s", error)


def _trim_memory() -> None:
    """Have the C library return what loading took and let go; glibc would keep it, a tenth of what a worker needs."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    if trim is not None:
        trim(0)
