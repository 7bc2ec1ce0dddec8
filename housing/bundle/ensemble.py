"""A model: the mean of its members, or a blend of two means by the distance to the nearest training row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from housing.core.errors import ConfigError
from housing.features.applicability import ApplicabilityDomain
from housing.features.pipeline import Features
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema

ALL, NEAR, FAR = "all", "near", "far"


REGIONS = (ALL, NEAR, FAR)


class Estimator(Protocol):
    """What gives one number for each row of its columns."""

    def predict(self, columns: Matrix) -> Vector:
        """Give the numbers, shape (rows,)."""


@dataclass(frozen=True)
class Member:
    """An estimator, the features it sees (members may share them), and where its word counts."""

    estimator: Estimator
    features: int  # place among the ensemble's
    region: str = ALL
    columns: list[int] | None = None  # of the features that it sees; all where there is none

    def __post_init__(self) -> None:
        if self.region not in REGIONS:
            raise ConfigError(f"region is {self.region!r}; allowed: {', '.join(REGIONS)}")

    def predict(self, columns: Matrix) -> Vector:
        """Give the estimator's number for each row of what its features gave."""
        return self.estimator.predict(columns if self.columns is None else columns[:, self.columns])

    @property
    def config(self) -> dict[str, Any]:
        """All but the estimator."""
        return {"features": self.features, "region": self.region, "columns": self.columns}


@dataclass
class Ensemble:
    """Members that predict together. `reach` is there where some count only near training rows, or only far from them."""

    schema: Schema
    features: list[Features]
    members: list[Member]
    applicability: ApplicabilityDomain | None = None

    def __post_init__(self) -> None:
        if self.applicability is None and any(member.region != ALL for member in self.members):
            raise ConfigError(
                "a member counts only near or only far, and model.applicability is missing or the table has no coordinates"
            )
        for where in (NEAR, FAR):
            if not any(member.region in (ALL, where) for member in self.members):
                raise ConfigError(f"no member of the model counts {where} training rows")

    def predict(self, matrix: Matrix) -> Vector:
        """Predict each row of the schema's matrix, in the target's unit, within its bounds."""
        return self.predict_with_columns(matrix)[0]

    def predict_with_columns(self, matrix: Matrix) -> tuple[Vector, Matrix]:
        """Predict, and give the columns of the first features too."""
        columns: dict[int, Matrix] = {}
        if self.applicability is None:
            predicted = self._mean(matrix, ALL, columns)
        else:
            predicted = self._blend(matrix, self.applicability.proximity(matrix), columns)
        return clip_to_bounds(self.schema, predicted), self._columns(0, matrix, columns)

    def _blend(self, matrix: Matrix, weight_near: Vector, columns: dict[int, Matrix]) -> Vector:
        predicted = np.zeros(len(matrix))
        for where, share in ((NEAR, weight_near), (FAR, 1.0 - weight_near)):
            if share.any():
                predicted += share * self._mean(matrix, where, columns)
        return predicted

    def _mean(self, matrix: Matrix, region: str, columns: dict[int, Matrix]) -> Vector:
        members = [member for member in self.members if member.region in (ALL, region)]
        estimates = [member.predict(self._columns(member.features, matrix, columns)) for member in members]
        return np.asarray(sum(estimates) / len(estimates))  # for one row numpy's mean takes longer than a small tree

    def _columns(self, index: int, matrix: Matrix, cache: dict[int, Matrix]) -> Matrix:
        if index not in cache:
            cache[index] = self.features[index].transform(matrix)
        return cache[index]

    def to_config(self) -> dict[str, Any]:
        """Give how the members come together, for `ensemble.json`."""
        reach = None if self.applicability is None else self.applicability.parameters
        return {"members": [member.config for member in self.members], "applicability": reach}


def clip_to_bounds(schema: Schema, raw: Vector) -> Vector:
    """Hold predictions within the bounds of the target, where it has any."""
    target = schema.target
    return raw if target.min is None and target.max is None else np.clip(raw, target.min, target.max)


def restore_ensemble(
    schema: Schema, features: list[Features], estimators: list[Estimator], config: Mapping[str, Any], arrays: Mapping[str, Any]
) -> Ensemble:
    """Put an ensemble together again from its parts and its declaration."""
    members = [Member(estimator, **one) for estimator, one in zip(estimators, config["members"], strict=True)]
    reach = ApplicabilityDomain.from_config(schema, config["applicability"])
    if reach is not None:
        reach.arrays |= dict(arrays)
    return Ensemble(schema, features, members, reach)
