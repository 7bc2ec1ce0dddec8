"""The memory-mapped files in which processes keep their metrics; Prometheus' client adds them up at /metrics."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from housing.core.errors import ConfigError
from housing.core.files import atomic_write

METRICS_DIR_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # the client's own name for it


def use_process_name(name: str) -> None:
    """Store the metrics of this process in files of this name, so that a replacement continues those of its predecessor.

    The client would name them by pid. Call this before the first metric is created; no other living process may use the name.
    """
    if METRICS_DIR_VARIABLE not in os.environ:
        raise ConfigError(
            f"The environment variable {METRICS_DIR_VARIABLE} is unset: it names the directory of the metrics files."
            " python -m housing.serve sets it."
        )
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: name)  # type: ignore[no-untyped-call]


def series_key(name: str, description: str, labels: Mapping[str, str]) -> str:
    """Return the client's key of a series. `name` is the name of the sample, which ends with _total for a counter."""
    return sample_key(name.removesuffix("_total"), name, description, labels)


def sample_key(metric: str, name: str, description: str, labels: Mapping[str, str]) -> str:
    """Return the client's key of a series whose sample is part of a metric, such as a bucket of a histogram."""
    return mmap_key(metric, name, list(labels), list(labels.values()), description)


def write_series(path: Path, numbers: Mapping[str, float]) -> None:
    """Write a file of series atomically. Its prefix tells the client how to aggregate: counter, histogram, gauge_max."""
    with atomic_write(path) as temporary:
        file = MmapedDict(str(temporary))  # type: ignore[no-untyped-call]
        for series, number in numbers.items():
            file.write_value(series, number, 0.0)  # type: ignore[no-untyped-call]
        file.close()  # type: ignore[no-untyped-call]


def read_series(path: Path) -> Iterable[tuple[str, float, float, int]]:
    """Return key, value, time and byte offset of each series in a file."""
    series: Iterable[tuple[str, float, float, int]] = MmapedDict.read_all_values_from_file(str(path))  # type: ignore[no-untyped-call]
    return series
