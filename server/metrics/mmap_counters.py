"""Counters of a worker as one array: a request adds all its numbers at once; the client takes a microsecond for each."""

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from housing.server_files import metric_files

Numbers = NDArray[np.float64] | NDArray[np.intp]


class MmapCounters:
    """The values of series in a file, which the successor of a replaced worker continues."""

    def __init__(self, path: Path, keys: Sequence[str]) -> None:
        """Open the file. A series that it lacks starts at 0; other series in it stay."""
        present = {key: number for key, number, _, _ in metric_files.read_series(path)} if path.exists() else {}
        if not present.keys() >= set(keys):
            metric_files.write_series(path, dict.fromkeys(keys, 0.0) | present)
        # the client stores each number at a multiple of 8 bytes
        offsets = {key: offset // 8 for key, _, _, offset in metric_files.read_series(path)}
        self._values = np.asarray(np.memmap(path, np.float64, "r+"))
        self._offsets = np.array([offsets[key] for key in keys])
        self._lock = threading.Lock()

    def add(self, numbers: Numbers) -> None:
        """Add a number to each series, in the order of the keys."""
        with self._lock:
            self._values[self._offsets] += numbers
