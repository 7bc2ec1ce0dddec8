"""Metrics of a served version: rows, histograms of columns and predictions, values out of range, intervals.

Each worker has a file for each version; constants of a version, such as training shares, are in one file. Files of versions
that are no longer published are removed.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from housing.bundle.bundle import Bundle
from housing.schema.binning import UNCOUNTED, Bin, Binning
from housing.schema.column import Matrix, Vector
from housing.server_files import metric_files, releases
from housing.server_files.metric_files import series_key
from server.metrics.mmap_counters import MmapCounters

VERSION_MARK = "-version-"  # in the names of these files, before the name of the release


ROWS, WIDTH_SUM, WIDTH_COUNT = range(3)
COUNTERS = {
    "housing_rows_total": "Rows predicted.",
    "housing_interval_width_sum_total": "Sum of the widths of returned intervals, in the target's unit.",
    "housing_interval_width_count_total": "Intervals returned.",
}
OUT_OF_RANGE = "housing_out_of_range_total", "Values below the lowest or above the highest of the training rows."
CREATED = "housing_model_created_seconds", "Creation time of the model, in unix seconds."
RMSE = "housing_model_validation_rmse", "RMSE on validation rows, from the model card."
assert UNCOUNTED == ROWS  # the number of rows needs no counting


class ModelMetrics:
    """Counters of one version in one worker. Once constructed, all series exist, at 0 or at the values of a predecessor."""

    def __init__(self, metrics: Path, worker_id: int, folder: Path, bundle: Bundle, version: str, name: str = "") -> None:
        """Open the counters of the release in `folder`; remove those of its releases that no longer exist.

        `name` is that of the model if the server has several.
        """
        self._binning = Binning(bundle.schema, bundle.reference, len(COUNTERS))
        _remove_stale_files(metrics, folder, version, name)
        labels, file = version_labels(version, name), f"{files_mark(name)}{folder.name}.db"
        metric_files.write_series(metrics / f"gauge_max_all{file}", _constant_values(self._binning, bundle, labels))
        self._counters = MmapCounters(metrics / f"counter_{worker_id}{file}", _counter_keys(self._binning, labels))

    def add(self, matrix: Matrix, predictions: Vector, lower: Vector | None = None, upper: Vector | None = None) -> None:
        """Count predicted rows, and the bounds of their intervals if there are any."""
        numbers = self._binning.count(matrix, predictions)
        numbers[ROWS] = len(matrix)
        if lower is None or upper is None:
            self._counters.add(numbers)
        else:
            with_widths = numbers.astype(float)
            with_widths[WIDTH_SUM], with_widths[WIDTH_COUNT] = (upper - lower).sum(), len(matrix)
            self._counters.add(with_widths)


def version_labels(version: str, name: str) -> dict[str, str]:
    """Return the labels of a version, with the name of its model if the server has several."""
    return {"name": name, "version": version} if name else {"version": version}


def files_mark(name: str) -> str:
    """Return what stands in the names of a model's files before the name of the release."""
    return f"{VERSION_MARK}{name}~" if name else VERSION_MARK


def _counter_keys(binning: Binning, labels: Mapping[str, str]) -> list[str]:
    first = [series_key(name, description, labels) for name, description in COUNTERS.items()]
    ranged = [series_key(*OUT_OF_RANGE, {**labels, "column": name}) for name in binning.numeric_columns]
    return [*first, *(_bin_key(bin_, "total", "Values", labels) for bin_ in binning.bins), *ranged]


def _constant_values(binning: Binning, bundle: Bundle, labels: Mapping[str, str]) -> dict[str, float]:
    card = bundle.card
    return {
        series_key(*CREATED, labels): datetime.fromisoformat(card["created"]).timestamp(),
        series_key(*RMSE, labels): card["metrics"]["rmse"],
        **{_bin_key(bin_, "share", "Share of training rows", labels): bin_.share for bin_ in binning.bins},
    }


def _bin_key(bin_: Bin, kind: str, subject: str, labels: Mapping[str, str]) -> str:
    if bin_.column is None:
        return series_key(f"housing_prediction_bin_{kind}", f"{subject} by bin of the prediction.", {**labels, "bin": bin_.name})
    bin_labels = {**labels, "column": bin_.column, "bin": bin_.name}
    return series_key(f"housing_column_bin_{kind}", f"{subject} by bin of each column.", bin_labels)


def _remove_stale_files(metrics: Path, folder: Path, version: str, name: str) -> None:
    """Remove the files of all releases except this one and those published beside it.

    A new store numbers its versions from 1 again. Two models cannot share series, so another release of the same version goes.
    """
    current = {
        folder.name,
        *(release for release, origin in releases.list_releases(folder.parent).items() if origin["version"] != version),
    }
    mark = files_mark(name)
    for path in metrics.glob(f"*{mark}*.db"):
        if path.stem.partition(mark)[2] not in current:
            path.unlink(missing_ok=True)  # another worker may remove it at the same time
