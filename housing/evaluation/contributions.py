"""What each column contributed to a prediction, from XGBoost's own trees.

Lundberg, Erion and Lee, "Consistent Individualized Feature Attribution for Tree Ensembles", arXiv 1802.03888 (2018).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from housing.bundle.bundle import Bundle
from housing.bundle.ensemble import ALL, FAR, NEAR, Ensemble, Member
from housing.schema.column import Matrix, Vector


@dataclass(frozen=True)
class ShapValues:
    """Contributions of columns to predictions, in the target's unit. A row's add up, with `base`, to its prediction."""

    columns: list[str]
    contributions: Matrix  # (rows, columns)
    values: Matrix  # what the columns hold, (rows, columns)
    base_values: Vector  # what is predicted where nothing is known, (rows,)

    def top_features(self, count: int) -> list[int]:
        """Give the places of the columns with the largest mean absolute contributions, largest first."""
        return [int(place) for place in np.argsort(-self.mean_abs, kind="stable")[:count]]

    @property
    def mean_abs(self) -> Vector:
        """The mean absolute contribution of each column."""
        return np.asarray(np.abs(self.contributions).mean(axis=0))


def explain(bundle: Bundle, boosters: Mapping[int, bytes], matrix: Matrix) -> ShapValues | None:
    """Explain predictions of rows, before they are held within the target's bounds; None where a member has no trees here.

    Members are averaged as they are in the prediction, and their columns put together by name.
    """
    ensemble = bundle.ensemble
    if set(boosters) != set(range(len(ensemble.members))):
        return None
    seen = [features.transform(matrix) for features in ensemble.features]
    contributions, values = dict[str, Vector](), dict[str, Vector]()
    base = np.zeros(len(matrix))
    for place, member in enumerate(ensemble.members):
        names, columns = _member_inputs(member, ensemble, seen)
        weight = _weight(member, ensemble, matrix)
        found = _contributions(boosters[place], columns) * weight[:, None]
        base += found[:, -1]
        for number, name in enumerate(names):
            contributions[name] = contributions.get(name, 0.0) + found[:, number]
            values.setdefault(name, columns[:, number])
    return ShapValues(list(contributions), np.column_stack([*contributions.values()]), np.column_stack([*values.values()]), base)


def _member_inputs(member: Member, ensemble: Ensemble, matrices: list[Matrix]) -> tuple[list[str], Matrix]:
    names, columns = ensemble.features[member.features].names, matrices[member.features]
    if member.columns is None:
        return names, columns
    return [names[place] for place in member.columns], columns[:, member.columns]


def _weight(member: Member, ensemble: Ensemble, matrix: Matrix) -> Vector:
    """Give the weight that a member has in the prediction of each row."""
    nearness = np.ones(len(matrix)) if ensemble.applicability is None else ensemble.applicability.proximity(matrix)
    weight = np.zeros(len(matrix))
    for where, share in ((NEAR, nearness), (FAR, 1.0 - nearness)):
        if member.region in (ALL, where):
            weight += share / sum(other.region in (ALL, where) for other in ensemble.members)
    return weight


def _contributions(trees: bytes, columns: Matrix) -> Matrix:
    """Give what each column contributed to each row, and last what is predicted where nothing is known."""
    from xgboost import Booster, DMatrix  # pylint: disable=import-outside-toplevel  # seconds that only this needs

    booster = Booster()
    booster.load_model(bytearray(trees))
    return np.asarray(booster.predict(DMatrix(columns), pred_contribs=True), dtype=np.float64)
