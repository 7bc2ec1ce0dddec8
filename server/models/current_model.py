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
from server.metrics.model_metrics import Counts
from server.validation.rows import Check

CountsOf = Callable[[Path, Bundle, str], Counts]


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """A bundle, where it came from, the check of rows that was made from its schema, and what is counted of it."""

    bundle: Bundle
    served: dict[str, Any]
    check: Check
    counts: Counts

    @property
    def told(self) -> dict[str, Any]:
        """Which model this is, as each answer says."""
        return {"model": self.served["model"], "version": self.served["version"]}

    @property
    def example(self) -> Record:
        """A row that can be sent as it is: the golden row in the middle of the predictions."""
        rows: list[Record] = self.bundle.golden["rows"]
        return rows[len(rows) // 2]

    def predict(self, rows: Matrix, most: int) -> Vector:
        """Predict rows of the schema's matrix, `most` at once: so many were tried when the bundle was proven."""
        pieces = np.array_split(rows, range(most, len(rows), most))
        return np.concatenate([self.bundle.predict(piece) for piece in pieces])

    @classmethod
    def read(cls, folder: Path, counts_of: CountsOf) -> "Model":
        """Read a published version. Raises BundleError where it is damaged."""
        bundle, served = Bundle.read(folder / releases.BUNDLE), releases.origin(folder)
        return cls(bundle, served, Check(bundle.schema), counts_of(folder, bundle, served["version"]))


class InUse:
    """Holds the model in use; a thread looks for a newly published one and loads it before it lets go of the old."""

    def __init__(self, folder: Path, poll: float, counts_of: CountsOf) -> None:
        self._folder, self._poll, self._counts_of = folder, poll, counts_of
        self._seen: tuple[Path, int] | None = None
        self._model: Model | None = None
        self._why_not = "nothing is published yet; promote a model: python -m housing.promote"
        self._one_at_a_time = threading.Lock()
        self._look()
        threading.Thread(target=self._watch, name="look for a new model", daemon=True).start()

    def get(self) -> Model:
        """Give the model in use. Raises BundleError, which says why there is none."""
        if self._model is None:
            self._look()  # another worker may have said already that it is ready
        if self._model is None:
            raise BundleError(self._why_not)
        return self._model

    def _look(self) -> None:
        """Load what is published, where it is not what was seen last."""
        with self._one_at_a_time:
            newest = releases.current(self._folder)
            if newest is None:
                return
            seen = (newest, newest.stat().st_mtime_ns)  # a damaged one comes again under its name
            if seen == self._seen:
                return
            try:
                self._model = Model.read(newest, self._counts_of)
                _give_memory_back()
            except Exception as error:  # pylint: disable=broad-exception-caught  # no new model may end the one in use
                self._why_not = "what is published is damaged; the server's log says where"
                log.error("refused, the model in use stays: %s: %s", type(error).__name__, error)
                if isinstance(error.__cause__ or error, OSError):  # a bundle tells of it as its own error
                    return  # the disk, or a free file descriptor, may be back at the next look
            self._seen = seen

    def _watch(self) -> None:
        while True:
            time.sleep(self._poll)
            try:
                self._look()
            except OSError as error:
                log.error("the published model cannot be read now: %s", error)


def _give_memory_back() -> None:
    """Have the C library return what loading took and let go; glibc would keep it, a tenth of what a worker needs."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    if trim is not None:
        trim(0)
