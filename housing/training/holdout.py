"""What a fit leaves besides its bundle: what it said of rows that it was not fitted on, and its trees as XGBoost writes them.

The bundle may be of a second fit, which knows the validation rows too; these predictions are of the first, which does not.
Trees are kept in XGBoost's own format (which holds no code), since only XGBoost can say what each column contributed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from housing.data.split import Rows
from housing.schema.column import Vector
from housing.training.estimators import FittedEstimator, Model

PREDICTIONS_FILE, BOOSTERS_FOLDER = "holdout_predictions.npz", "boosters"


@dataclass(frozen=True)
class HoldoutPredictions:
    """Predictions for the validation rows by a fit on the training rows alone.

    `scales`: by how much each was expected to be off, each row out of fold; only where the run made intervals. `native`:
    the bundle's members that are boosted trees, by place.
    """

    rows: Rows
    predicted: Vector
    error_scales: Vector | None = None
    boosters: Mapping[int, bytes] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write it as files that hold no code."""
        (folder / BOOSTERS_FOLDER).mkdir(parents=True)
        arrays = {"rows": self.rows, "predicted": self.predicted, "error_scales": self.error_scales}
        np.savez(folder / PREDICTIONS_FILE, **{name: array for name, array in arrays.items() if array is not None})  # type: ignore[arg-type]
        for place, trees in self.boosters.items():
            (folder / BOOSTERS_FOLDER / f"{place}.ubj").write_bytes(trees)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what `write` wrote."""
        with np.load(folder / PREDICTIONS_FILE, allow_pickle=False) as stored:
            arrays: dict[str, Any] = dict(stored)
        native = {int(path.stem): path.read_bytes() for path in (folder / BOOSTERS_FOLDER).glob("*.ubj")}
        return cls(arrays["rows"], arrays["predicted"], arrays.get("error_scales"), native)


def export_boosters(model: Model) -> dict[int, bytes]:
    """Give the members of a fitted model that XGBoost made, by place, in its own format."""
    estimators = ((place, member.estimator) for place, member in enumerate(model.ensemble.members))
    fitted = {place: one.estimator for place, one in estimators if isinstance(one, FittedEstimator)}
    return {place: _booster_bytes(one) for place, one in fitted.items() if hasattr(one, "get_booster")}


def _booster_bytes(estimator: Any) -> bytes:
    trees = estimator.get_booster()
    best = getattr(estimator, "best_iteration", None)  # only where fitting was stopped early
    return bytes((trees if best is None else trees[: best + 1]).save_raw("ubj"))
