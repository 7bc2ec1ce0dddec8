"""The files in which processes keep their metrics, and from which Prometheus' client adds them up at /metrics."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from housing.core.errors import ConfigError
from housing.core.files import atomic_write

METRICS_DIR_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # the client's own name for it


def use_process_name(name: str) -> None:
    """Keep this process's metrics in files of that name: a replacement goes on in those of its predecessor.

    The client would name them by pid. Call it before the first metric is made; no other living process may have the name.
    """
    if METRICS_DIR_VARIABLE not in os.environ:
        raise ConfigError(
            f"the environment variable {METRICS_DIR_VARIABLE} is missing: a folder for metrics; python -m housing.serve makes one"
        )
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: name)  # type: ignore[no-untyped-call]


def series_key(name: str, description: str, labels: Mapping[str, str]) -> str:
    """Give the client's name of a series. `name` is that of a sample: of a counter it ends with _total."""
    return sample_key(name.removesuffix("_total"), name, description, labels)


def sample_key(metric: str, name: str, description: str, labels: Mapping[str, str]) -> str:
    """Give the client's name of a series whose sample is part of a metric, as a bucket is of a histogram."""
    return mmap_key(metric, name, list(labels), list(labels.values()), description)


def write_series(path: Path, numbers: Mapping[str, float]) -> None:
    """Write a file of series, whole. What its name begins with says how the client adds up: counter, histogram, gauge_max."""
    with atomic_write(path) as partial:
        file = MmapedDict(str(partial))  # type: ignore[no-untyped-call]
        for series, number in numbers.items():
            file.write_value(series, number, 0.0)  # type: ignore[no-untyped-call]
        file.close()  # type: ignore[no-untyped-call]


def read_series(path: Path) -> Iterable[tuple[str, float, float, int]]:
    """Yield key, number, time and place in the file of each series."""
    found: Iterable[tuple[str, float, float, int]] = MmapedDict.read_all_values_from_file(str(path))  # type: ignore[no-untyped-call]
    return found
