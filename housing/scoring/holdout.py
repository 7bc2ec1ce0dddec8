"""Held-out predictions and native XGBoost models, stored next to the bundle for reports.

The bundle may come from a refit on training and validation rows. These predictions come from the first fit, which did not use the
validation rows. Boosters are stored in XGBoost's own format, which holds no code, because only XGBoost computes the contributions
of each column.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from housing.bundle.array_files import read_arrays, write_arrays
from housing.bundle.conformal import Calibration
from housing.data.split import Rows
from housing.schema.column import Vector

PREDICTIONS_FILE, BOOSTERS_FOLDER = "holdout_predictions.npz", "boosters"


@dataclass(frozen=True)
class HoldoutPredictions:
    """Predictions for the validation rows by a fit on the training rows alone.

    Attributes
    ----------
    rows
        Row indices of the validation rows in the table.
    predicted
        Shape (rows,), in the target's unit.
    calibration
        Scores of the rows, out of fold, or None if the run has no intervals.
    boosters
        XGBoost models of the bundle's members, by member index.
    """

    rows: Rows
    predicted: Vector
    calibration: Calibration | None = None
    boosters: Mapping[int, bytes] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the predictions and boosters to files that hold no code."""
        (folder / BOOSTERS_FOLDER).mkdir(parents=True)
        calibration = {} if self.calibration is None else self.calibration.to_arrays()
        write_arrays(folder / PREDICTIONS_FILE, {"rows": self.rows, "predicted": self.predicted, **calibration})
        for index, booster in self.boosters.items():
            (folder / BOOSTERS_FOLDER / f"{index}.ubj").write_bytes(booster)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what `write` wrote."""
        arrays = read_arrays(folder / PREDICTIONS_FILE)
        calibration = Calibration.from_arrays(arrays) if "scores" in arrays else None
        boosters = {int(path.stem): path.read_bytes() for path in (folder / BOOSTERS_FOLDER).glob("*.ubj")}
        return cls(arrays["rows"], arrays["predicted"], calibration, boosters)
