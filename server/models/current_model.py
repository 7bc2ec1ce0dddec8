"""The current model of a worker, swapped between requests when a new release is published."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from housing.bundle.adaptation import Adaptation, adaptation_path
from housing.bundle.bundle import Bundle
from housing.bundle.onnx_model import ServedOnnxModel
from housing.core.canary import is_chosen
from housing.core.errors import BundleError
from housing.core.memory import trim_memory
from housing.core.model_list import Limits
from housing.schema.column import Matrix, Record, Vector
from housing.server_files import releases
from housing.server_files.signatures import TrustedKeys
from server.metrics.model_metrics import ModelMetrics
from server.validation.rows import RowValidator

MetricsFactory = Callable[[Path, Bundle, str, str], ModelMetrics]
ModelReader = Callable[[Path], "Model"]
NO_MODEL = "No model is available yet. Promote one with: python -m housing.promote"
UNREADABLE_FOLDER = "No model is available: the release folder cannot be read. See the server log."
DAMAGED_RELEASE = "No model is available: the published release is damaged or not trusted. See the server log."

log = logging.getLogger(__name__)
_loading = threading.Lock()  # one model at a time: loading needs more memory than the model


@dataclass(frozen=True)
class Model:
    """A released bundle with its origin, row validator and metrics."""

    bundle: Bundle
    release: dict[str, Any]
    validator: RowValidator
    metrics: ModelMetrics

    @cached_property  # of each response, and of its entry in the log
    def info(self) -> dict[str, Any]:
        """The model's name and version, which each response includes."""
        return {"model": self.release["model"], "version": self.release["version"]}

    @cached_property
    def name(self) -> str:
        """The name under which this server serves the model, or "" if it serves no other."""
        name: str = self.release.get("name", "")
        return name

    @property
    def adaptation(self) -> Adaptation | None:
        """How feedback has changed the intervals, or None if it has not."""
        return None if self.bundle.interval is None else self.bundle.interval.adaptation

    def adapted(self, directory: Path) -> "Model":
        """Return the model with intervals as the joiner adapted them last. Raises OSError or ValueError if it cannot be read."""
        path, known = adaptation_path(directory, self.name, self.info["version"]), self.adaptation
        latest = None if self.bundle.interval is None else Adaptation.read(path, known)
        if latest is known or latest is None or latest.run_id != self.bundle.card["run_id"]:
            return self
        return replace(self, bundle=self.bundle.adapted(latest))

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
    def read(cls, metrics_factory: MetricsFactory, trusted_keys: TrustedKeys, name: str, folder: Path) -> "Model":
        """Load a release of a registered model, while other threads go on. Raises BundleError if it is damaged or not trusted."""
        with _loading:
            with trusted_keys.verified(folder, name) as verified:
                bundle = Bundle.read(verified / releases.BUNDLE, ServedOnnxModel)
                release = releases.release_info(verified)
            metrics = metrics_factory(folder, bundle, release["version"], release.get("name", ""))
            return cls(bundle, release, RowValidator(bundle.schema), metrics)


class Adapter:
    """Adapts the intervals of models to feedback, by the files of a directory; without one, models stay as they are."""

    def __init__(self, directory: Path | None) -> None:
        self._directory, self._last_error = directory, ""

    def adapt(self, model: Model) -> Model:
        """Return a model with its latest intervals, or as it is if nothing is new or can be read."""
        if self._directory is None:
            return model
        try:
            adapted, message = model.adapted(self._directory), ""
        except (OSError, ValueError) as error:
            adapted, message = model, f"Intervals of version {model.info['version']} stay as they are: {error}"
        if message and message != self._last_error:
            log.error("%s", message)
        self._last_error = message
        return adapted


class CanaryModel:
    """Holds the version that answers a share of the requests, if the release folder has one."""

    def __init__(self, folder: Path, read: ModelReader) -> None:
        self._folder, self._read = folder, read
        self._last_release: Path | None = None
        self.model: Model | None = None
        self.share = 0.0

    def choose(self, choice: str) -> Model | None:
        """Return the canary if it answers a request, given the request's API key or ID."""
        model = self.model
        return model if model is not None and is_chosen(model.info["version"], choice, self.share) else None

    def describe(self) -> dict[str, Any] | None:
        """Return the version of the canary and its share of the requests, or None."""
        return None if self.model is None else {"version": self.model.info["version"], "share": self.share}

    def reload_if_new(self) -> None:
        """Load the canary unless it is the last one that was tried, and drop it once it is over. Raises OSError."""
        release, self.share = releases.canary_release(self._folder) or (None, 0.0)
        if release != self._last_release:
            self.model, self._last_release = None, release
            try:
                self.model = None if release is None else self._read(release)
            except Exception as error:  # pylint: disable=broad-exception-caught  # the current model answers all requests
                log.error("Rejected the canary; the current model stays: %s: %s", type(error).__name__, error)

    def unload(self) -> None:
        """Drop the canary from memory until `reload_if_new` loads it again."""
        self.model, self._last_release = None, None


class CurrentModel:
    """Holds the current model of a release folder, and its canary. A new release is loaded before the old one is dropped."""

    def __init__(self, folder: Path, read: ModelReader, adaptation_dir: Path | None = None) -> None:
        self._folder, self._adapter = folder, Adapter(adaptation_dir)
        self._read: ModelReader = lambda release: self._adapter.adapt(read(release))
        self.canary = CanaryModel(folder, self._read)
        self.limits = Limits()
        self.last_used = 0.0
        self.is_unloaded = False  # to save memory: it is loaded again when a request needs it
        self._last_release: tuple[Path, int] | None = None
        self._model: Model | None = None
        self._unavailable_reason = NO_MODEL
        self._last_error = ""
        self._lock = threading.Lock()

    @property
    def model(self) -> Model | None:
        """The current model, or None if it is not in memory."""
        return self._model

    @property
    def version(self) -> str | None:
        """The version of the published release, or None if there is none."""
        try:
            release = releases.current_release(self._folder)
            return None if release is None else str(releases.release_info(release)["version"])
        except OSError:
            return None

    def get(self, choice: str = "") -> Model:
        """Return the current model, or the canary if it answers the request of a `choice` (its API key or ID).

        Raises BundleError, with the reason, if there is no current model.
        """
        if self._model is None:
            self.reload_if_new()  # another worker may have reported readiness already
        model = self._model
        if model is None:
            raise BundleError(self._unavailable_reason)
        self.last_used = time.monotonic()
        canary = self.canary.choose(choice) if choice and self.canary.model else None
        return canary or model

    def unload(self) -> None:
        """Drop the model and its canary from memory until a request needs them."""
        with self._lock:
            self.canary.unload()
            self._model, self._last_release, self.is_unloaded = None, None, True

    def reload_if_new(self) -> None:
        """Load the published release, and that of the canary, unless it is the last one that was tried."""
        with self._lock:
            self._model, self.canary.model = (model and self._adapter.adapt(model) for model in (self._model, self.canary.model))
            try:
                self.canary.reload_if_new()
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
                self._model, self.is_unloaded = self._read(release), False
                trim_memory()
            except Exception as error:  # pylint: disable=broad-exception-caught  # a bad release must not stop the current model
                self._unavailable_reason = DAMAGED_RELEASE
                self._log_once(f"Rejected release {release.name}; the current model stays: {type(error).__name__}: {error}")
                if isinstance(error.__cause__ or error, OSError):  # a BundleError may wrap one
                    return  # retry: the disk may recover, or file descriptors become free
            self._last_release = release_id

    def _log_once(self, message: str) -> None:
        """Log an error unless it is the last one: the folder is read every second."""
        if message != self._last_error:
            log.error("%s", message)
        self._last_error = message
