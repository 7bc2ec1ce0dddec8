"""Held-out predictions and native XGBoost models, stored next to the bundle for reports.

The bundle may come from a refit on training and validation rows. These predictions come from the first fit, which did not use the
validation rows. Boosters are stored in XGBoost's own format, which holds no code, because only XGBoost computes the contributions
of each column.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

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
    error_scales
        Expected size of each error, or of each error of the logarithm, out of fold, or None if the run has no intervals.
    boosters
        XGBoost models of the bundle's members, by member index.
    """

    rows: Rows
    predicted: Vector
    error_scales: Vector | None = None
    boosters: Mapping[int, bytes] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the predictions and boosters to files that hold no code."""
        (folder / BOOSTERS_FOLDER).mkdir(parents=True)
        arrays = {"rows": self.rows, "predicted": self.predicted, "error_scales": self.error_scales}
        np.savez(folder / PREDICTIONS_FILE, **{name: array for name, array in arrays.items() if array is not None})  # type: ignore[arg-type]
        for index, booster in self.boosters.items():
            (folder / BOOSTERS_FOLDER / f"{index}.ubj").write_bytes(booster)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what `write` wrote."""
        with np.load(folder / PREDICTIONS_FILE, allow_pickle=False) as stored:
            arrays: dict[str, Any] = dict(stored)
        boosters = {int(path.stem): path.read_bytes() for path in (folder / BOOSTERS_FOLDER).glob("*.ubj")}
        return cls(arrays["rows"], arrays["predicted"], arrays.get("error_scales"), boosters)
