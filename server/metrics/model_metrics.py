"""What is counted of a version: rows, values and predictions by bin beside the training shares, values outside, intervals.

Each worker has a file for each version, and a version's constants are in a file of their own. Those of versions that are
not published any more are removed.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from housing.bundle.bundle import Bundle
from housing.schema.column import Matrix, Vector
from server.core import releases
from server.metrics import mmap_files
from server.metrics.histograms import NOWHERE, Bin, Binning
from server.metrics.mmap_counters import Cells
from server.metrics.mmap_files import key

MARK = "-version-"  # in the names of these files, before the name under which the version is published


ROWS, WIDTH_SUM, WIDTH_COUNT = range(3)


FIRST = {
    "housing_rows_total": "Rows predicted.",
    "housing_interval_width_sum_total": "Sum of the widths of the intervals that were given, in the target's unit.",
    "housing_interval_width_count_total": "Intervals that were given.",
}


OUT_OF_RANGE = "housing_out_of_range_total", "Values below the lowest or above the highest of the training rows."


CREATED = "housing_model_created_seconds", "When the model was made, as unix time."


RMSE = "housing_model_validation_rmse", "The error on validation rows, as the model's card says."


assert NOWHERE == ROWS  # the rows are known without counting


class Counts:
    """A worker's counters of one version. They exist, at 0 or where a predecessor left them, as soon as this is made."""

    def __init__(self, metrics: Path, slot: int, folder: Path, bundle: Bundle, version: str) -> None:
        """Open the counters of the version that is published in a folder; remove those of versions that are gone."""
        self._binning = Binning(bundle.schema, bundle.reference, len(FIRST))
        _remove_gone(metrics, folder, version)
        mmap_files.write(metrics / f"gauge_max_all{MARK}{folder.name}.db", _constants(self._binning, bundle, version))
        self._cells = Cells(metrics / f"counter_{slot}{MARK}{folder.name}.db", _counters(self._binning, version))

    def add(self, matrix: Matrix, predictions: Vector, lower: Vector | None = None, upper: Vector | None = None) -> None:
        """Count predicted rows, with the ends of intervals where they were given."""
        numbers = self._binning.count(matrix, predictions)
        numbers[ROWS] = len(matrix)
        if lower is None or upper is None:
            self._cells.add(numbers)
        else:
            with_widths = numbers.astype(float)
            with_widths[WIDTH_SUM], with_widths[WIDTH_COUNT] = (upper - lower).sum(), len(matrix)
            self._cells.add(with_widths)


def _counters(binning: Binning, version: str) -> list[str]:
    of_version = {"version": version}
    first = [key(name, meaning, of_version) for name, meaning in FIRST.items()]
    ranged = [key(*OUT_OF_RANGE, {**of_version, "column": name}) for name in binning.ranged]
    return [*first, *(_bin_key(bin_, "total", "Values", of_version) for bin_ in binning.bins), *ranged]


def _constants(binning: Binning, bundle: Bundle, version: str) -> dict[str, float]:
    of_version, card = {"version": version}, bundle.card
    return {
        key(*CREATED, of_version): datetime.fromisoformat(card["created"]).timestamp(),
        key(*RMSE, of_version): card["metrics"]["rmse"],
        **{_bin_key(bin_, "share", "Share of training rows", of_version): bin_.share for bin_ in binning.bins},
    }


def _bin_key(bin_: Bin, kind: str, what: str, of_version: Mapping[str, str]) -> str:
    if bin_.column is None:
        return key(f"housing_prediction_bin_{kind}", f"{what} by bin of the prediction.", {**of_version, "bin": bin_.name})
    labels = {**of_version, "column": bin_.column, "bin": bin_.name}
    return key(f"housing_column_bin_{kind}", f"{what} by bin of each column.", labels)


def _remove_gone(metrics: Path, folder: Path, version: str) -> None:
    """Keep the files of the version in a folder and of those published beside it, and no others.

    A number comes again in a new store, and two models cannot have the same series: the one beside it goes.
    """
    kept = {folder.name, *(name for name, origin in releases.versions(folder.parent).items() if origin["version"] != version)}
    for path in metrics.glob(f"*{MARK}*.db"):
        if path.stem.partition(MARK)[2] not in kept:
            path.unlink(missing_ok=True)  # another worker may be as far
