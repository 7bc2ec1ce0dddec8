"""SHAP values: the contribution of each column to a prediction, from XGBoost's own trees.

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
    """Contributions of columns to predictions, in the target's unit, or to the logarithm of predictions.

    The contributions of a row and its base value add up to its prediction, or to its logarithm if the model was fitted on it.

    Attributes
    ----------
    contributions
        Shape (rows, columns).
    values
        Values of the columns, shape (rows, columns).
    base_values
        Expected predictions before any column is known, shape (rows,).
    weight
        How much each row counts in means, shape (rows,), or None if all count alike.
    """

    columns: list[str]
    contributions: Matrix
    values: Matrix
    base_values: Vector
    weight: Vector | None = None

    def top_features(self, count: int) -> list[int]:
        """Return the indices of the columns with the largest mean absolute contributions, largest first."""
        return [int(index) for index in np.argsort(-self.mean_abs, kind="stable")[:count]]

    @property
    def mean_abs(self) -> Vector:
        """The weighted mean absolute contribution of each column."""
        return np.asarray(np.average(np.abs(self.contributions), axis=0, weights=self.weight))


def explain(bundle: Bundle, boosters: Mapping[int, bytes], matrix: Matrix, weight: Vector | None = None) -> ShapValues | None:
    """Explain predictions of rows before they are clipped to the target's bounds.

    `boosters` holds XGBoost models by the index of their ensemble member. Return None if a member has none. Members are
    weighted as in the prediction, and contributions of columns with the same name are added up. The smearing factor of a
    logarithmic target is part of the base value.
    """
    ensemble = bundle.ensemble
    if set(boosters) != set(range(len(ensemble.members))):
        return None
    matrices = [features.transform(matrix) for features in ensemble.features]
    contributions, values = dict[str, Vector](), dict[str, Vector]()
    base_values = np.full(len(matrix), 0.0 if ensemble.transform is None else np.log(ensemble.transform.smearing))
    for index, member in enumerate(ensemble.members):
        names, columns = _member_inputs(member, ensemble, matrices)
        weighted = _contributions(boosters[index], columns) * _weight(member, ensemble, matrix)[:, None]
        base_values += weighted[:, -1]
        for column, name in enumerate(names):
            contributions[name] = contributions.get(name, 0.0) + weighted[:, column]
            values.setdefault(name, columns[:, column])
    stacked = np.column_stack([*contributions.values()]), np.column_stack([*values.values()])
    return ShapValues(list(contributions), *stacked, base_values, weight)


def _member_inputs(member: Member, ensemble: Ensemble, matrices: list[Matrix]) -> tuple[list[str], Matrix]:
    names, columns = ensemble.features[member.features].names, matrices[member.features]
    if member.columns is None:
        return names, columns
    return [names[index] for index in member.columns], columns[:, member.columns]


def _weight(member: Member, ensemble: Ensemble, matrix: Matrix) -> Vector:
    """Return the weight of a member in the prediction of each row."""
    proximity = np.ones(len(matrix)) if ensemble.applicability is None else ensemble.applicability.proximity(matrix)
    weight = np.zeros(len(matrix))
    for region, share in ((NEAR, proximity), (FAR, 1.0 - proximity)):
        if member.region in (ALL, region):
            total = sum(other.weight for other in ensemble.members if other.region in (ALL, region))
            weight += share * member.weight / total
    return weight


def _contributions(booster_bytes: bytes, columns: Matrix) -> Matrix:
    """Return the contribution of each column in each row; the last column holds the base values."""
    from xgboost import Booster, DMatrix  # pylint: disable=import-outside-toplevel  # takes seconds that only this needs

    booster = Booster()
    booster.load_model(bytearray(booster_bytes))
    return np.asarray(booster.predict(DMatrix(columns), pred_contribs=True), dtype=np.float64)
