"""The current model of a worker, swapped between requests when a new release is published."""

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
NO_MODEL = "No model is available yet. Promote one with: python -m housing.promote"
UNREADABLE_FOLDER = "No model is available: the release folder cannot be read. See the server log."
DAMAGED_RELEASE = "No model is available: the published release is damaged. See the server log."

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """A released bundle with its origin, row validator and metrics."""

    bundle: Bundle
    release: dict[str, Any]
    validator: RowValidator
    metrics: ModelMetrics

    @property
    def info(self) -> dict[str, Any]:
        """The model's name and version, which each response includes."""
        return {"model": self.release["model"], "version": self.release["version"]}

    @property
    def example(self) -> Record:
        """A valid request row: the golden row with the median prediction."""
        rows: list[Record] = self.bundle.golden["rows"]
        return rows[len(rows) // 2]

    def predict(self, rows: Matrix, batch_size: int) -> Vector:
        """Predict encoded rows in batches of at most `batch_size`, the size that was tested during verification."""
        batches = np.array_split(rows, range(batch_size, len(rows), batch_size))
        return np.concatenate([self.bundle.predict(batch) for batch in batches])

    @classmethod
    def read(cls, folder: Path, metrics_factory: MetricsFactory) -> "Model":
        """Load a release. Raises BundleError if it is damaged."""
        bundle, release = Bundle.read(folder / releases.BUNDLE), releases.release_info(folder)
        return cls(bundle, release, RowValidator(bundle.schema), metrics_factory(folder, bundle, release["version"]))


class CurrentModel:
    """Holds the current model. A thread watches for new releases and loads each before it drops the old one."""

    def __init__(self, folder: Path, poll_seconds: float, metrics_factory: MetricsFactory) -> None:
        self._folder, self._poll_seconds, self._metrics_factory = folder, poll_seconds, metrics_factory
        self._last_release: tuple[Path, int] | None = None
        self._model: Model | None = None
        self._unavailable_reason = NO_MODEL
        self._last_error = ""
        self._lock = threading.Lock()
        self._reload_if_new()
        threading.Thread(target=self._poll_forever, name="model reload", daemon=True).start()

    def get(self) -> Model:
        """Return the current model. Raises BundleError, with the reason, if there is none."""
        if self._model is None:
            self._reload_if_new()  # another worker may have reported readiness already
        if self._model is None:
            raise BundleError(self._unavailable_reason)
        return self._model

    def _reload_if_new(self) -> None:
        """Load the published release unless it is the last one that was tried."""
        with self._lock:
            try:
                release = releases.current_release(self._folder)
                release_id = None if release is None else (release, release.stat().st_mtime_ns)  # a repaired one keeps its name
            except OSError as error:
                self._unavailable_reason = UNREADABLE_FOLDER
                self._log_once(f"Cannot read {self._folder / releases.CURRENT}; the current model stays: {error}")
                return
            if release is None or release_id == self._last_release:
                if release is None:
                    self._unavailable_reason = NO_MODEL
                self._last_error = ""
                return
            try:
                self._model = Model.read(release, self._metrics_factory)
                _trim_memory()
            except Exception as error:  # pylint: disable=broad-exception-caught  # a bad release must not stop the current model
                self._unavailable_reason = DAMAGED_RELEASE
                self._log_once(f"Rejected release {release.name}; the current model stays: {type(error).__name__}: {error}")
                if isinstance(error.__cause__ or error, OSError):  # a BundleError may wrap one
                    return  # retry: the disk may recover, or file descriptors become free
            self._last_release = release_id

    def _poll_forever(self) -> None:
        while True:
            time.sleep(self._poll_seconds)
            self._reload_if_new()

    def _log_once(self, message: str) -> None:
        """Log an error unless it is the last one: the folder is read every second."""
        if message != self._last_error:
            log.error("%s", message)
        self._last_error = message


def _trim_memory() -> None:
    """Return freed memory to the system. glibc would keep what loading needed, a tenth of a worker's size."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
    if trim is not None:
        trim(0)
