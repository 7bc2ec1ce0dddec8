"""A model: the mean of its members, or a blend of two means by the distance to the nearest training row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from housing.core.errors import ConfigError
from housing.features.applicability import Reach
from housing.features.pipeline import Features
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema

EVERYWHERE, NEAR, FAR = "everywhere", "near", "far"


WHERE = (EVERYWHERE, NEAR, FAR)


class Estimator(Protocol):
    """What gives one number for each row of its columns."""

    def estimate(self, columns: Matrix) -> Vector:
        """Give the numbers, shape (rows,)."""


@dataclass(frozen=True)
class Member:
    """An estimator, the features it sees (members may share them), and where its word counts."""

    estimator: Estimator
    features: int  # place among the ensemble's
    where: str = EVERYWHERE
    columns: list[int] | None = None  # of the features that it sees; all where there is none

    def __post_init__(self) -> None:
        if self.where not in WHERE:
            raise ConfigError(f"where is {self.where!r}; allowed: {', '.join(WHERE)}")

    def estimate(self, columns: Matrix) -> Vector:
        """Give the estimator's number for each row of what its features gave."""
        return self.estimator.estimate(columns if self.columns is None else columns[:, self.columns])

    @property
    def declared(self) -> dict[str, Any]:
        """All but the estimator."""
        return {"features": self.features, "where": self.where, "columns": self.columns}


@dataclass
class Ensemble:
    """Members that predict together. `reach` is there where some count only near training rows, or only far from them."""

    schema: Schema
    features: list[Features]
    members: list[Member]
    reach: Reach | None = None

    def __post_init__(self) -> None:
        if self.reach is None and any(member.where != EVERYWHERE for member in self.members):
            raise ConfigError("a member counts only near or only far, and model.reach is missing or the table has no coordinates")
        for where in (NEAR, FAR):
            if not any(member.where in (EVERYWHERE, where) for member in self.members):
                raise ConfigError(f"no member of the model counts {where} training rows")

    def predict(self, matrix: Matrix) -> Vector:
        """Predict each row of the schema's matrix, in the target's unit, within its bounds."""
        return self.predict_with_columns(matrix)[0]

    def predict_with_columns(self, matrix: Matrix) -> tuple[Vector, Matrix]:
        """Predict, and give the columns of the first features too."""
        columns: dict[int, Matrix] = {}
        if self.reach is None:
            predicted = self._mean(matrix, EVERYWHERE, columns)
        else:
            predicted = self._blend(matrix, self.reach.nearness(matrix), columns)
        return within(self.schema, predicted), self._columns(0, matrix, columns)

    def _blend(self, matrix: Matrix, nearness: Vector, columns: dict[int, Matrix]) -> Vector:
        predicted = np.zeros(len(matrix))
        for where, share in ((NEAR, nearness), (FAR, 1.0 - nearness)):
            if share.any():
                predicted += share * self._mean(matrix, where, columns)
        return predicted

    def _mean(self, matrix: Matrix, where: str, columns: dict[int, Matrix]) -> Vector:
        members = [member for member in self.members if member.where in (EVERYWHERE, where)]
        estimates = [member.estimate(self._columns(member.features, matrix, columns)) for member in members]
        return np.asarray(sum(estimates) / len(estimates))  # for one row numpy's mean takes longer than a small tree

    def _columns(self, place: int, matrix: Matrix, known: dict[int, Matrix]) -> Matrix:
        if place not in known:
            known[place] = self.features[place].transform(matrix)
        return known[place]

    def declared(self) -> dict[str, Any]:
        """Give how the members come together, for `combine.json`."""
        reach = None if self.reach is None else self.reach.parameters
        return {"members": [member.declared for member in self.members], "reach": reach}


def within(schema: Schema, raw: Vector) -> Vector:
    """Hold predictions within the bounds of the target, where it has any."""
    target = schema.target
    return raw if target.min is None and target.max is None else np.clip(raw, target.min, target.max)


def restored(
    schema: Schema, features: list[Features], estimators: list[Estimator], declared: Mapping[str, Any], arrays: Mapping[str, Any]
) -> Ensemble:
    """Put an ensemble together again from its parts and its declaration."""
    members = [Member(estimator, **one) for estimator, one in zip(estimators, declared["members"], strict=True)]
    reach = Reach.declared(schema, declared["reach"])
    if reach is not None:
        reach.arrays |= dict(arrays)
    return Ensemble(schema, features, members, reach)
