"""Cache of fitted features: models with equal features that are fitted on the same rows share them."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

import numpy as np

from housing.data.split import Rows
from housing.fitting.estimators import FittedFeatures


class FeatureCache:
    """The features that were used last, up to a number of bytes. Threads can share it.

    All fits of a cache must be on the same table.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._entries: OrderedDict[tuple[str, ...], FittedFeatures] = OrderedDict()
        self._lock = Lock()

    def get_or_fit(self, key: str, rows: Rows, validation: Rows | None, fit: Callable[[], FittedFeatures]) -> FittedFeatures:
        """Return the features with this key that were fitted on the rows, or fit them.

        Parameters
        ----------
        key
            A text that is equal for equal features.
        validation
            The rows that the features hold for early stopping, if any.
        """
        full_key = (key, _digest(rows), "" if validation is None else _digest(validation))
        with self._lock:
            if full_key in self._entries:
                self._entries.move_to_end(full_key)
                return self._entries[full_key]
        fitted = fit()  # without the lock, so that other folds go on
        with self._lock:
            self._entries[full_key] = fitted
            while sum(map(_size, self._entries.values())) > self.max_bytes:
                self._entries.popitem(last=False)
        return fitted


def _digest(rows: Rows) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()


def _size(fitted: FittedFeatures) -> int:
    return int(fitted.columns.nbytes) + (0 if fitted.validation is None else int(fitted.validation[0].nbytes))
