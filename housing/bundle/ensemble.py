"""Ensemble: the weighted mean of its members, or a blend of a near and a far mean by the distance to the training rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from housing.bundle.log_transform import LogTransform
from housing.core.errors import ConfigError
from housing.features.applicability import ApplicabilityDomain
from housing.features.pipeline import Features
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema

ALL, NEAR, FAR = "all", "near", "far"
REGIONS = (ALL, NEAR, FAR)
CHUNK = 8000  # rows that are predicted at once: features of the default model take 1.2 kB per row while they are computed


class Estimator(Protocol):
    """A fitted estimator."""

    def predict(self, columns: Matrix) -> Vector:
        """Predict rows, shape (rows, columns). The result has the shape (rows,)."""


@dataclass(frozen=True)
class Member:
    """A member of an ensemble.

    Attributes
    ----------
    estimator
        The fitted estimator.
    features
        Index of its feature pipeline in the ensemble. Members may share a pipeline.
    region
        Rows for which it predicts: "all", "near" (training rows) or "far".
    columns
        Indices of the columns that it receives, or None for all.
    weight
        How much it counts in the mean, above 0. Only the ratios of weights matter.
    """

    estimator: Estimator
    features: int
    region: str = ALL
    columns: list[int] | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.weight) and self.weight > 0):
            raise ConfigError(f"The weight of a member must be a finite number above 0 (got {self.weight}).")
        if self.region not in REGIONS:
            raise ConfigError(f"The region of a member must be {', '.join(REGIONS[:-1])} or {REGIONS[-1]} (got {self.region!r}).")

    def predict(self, columns: Matrix) -> Vector:
        """Predict rows, shape (rows, names of the pipeline). The result has the shape (rows,)."""
        return self.estimator.predict(columns if self.columns is None else columns[:, self.columns])

    @property
    def config(self) -> dict[str, Any]:
        """All attributes but the estimator, for `ensemble.json`."""
        return {"features": self.features, "region": self.region, "columns": self.columns, "weight": self.weight}


@dataclass
class Ensemble:
    """Members that predict together.

    Attributes
    ----------
    schema
        The columns of the table.
    features
        Feature pipelines. The error model of intervals receives the columns of the first.
    members
        The members.
    applicability
        The domain that separates near from far rows, or None if all members predict all rows.
    transform
        Turns what members predict together into the target, or None if they predict the target itself.
    """

    schema: Schema
    features: list[Features]
    members: list[Member]
    applicability: ApplicabilityDomain | None = None
    transform: LogTransform | None = None

    def __post_init__(self) -> None:
        if self.applicability is None and any(member.region != ALL for member in self.members):
            raise ConfigError(
                "Members with the region near or far need model.applicability and a table with coordinates."
                " Set both, or use region=all."
            )
        for region in (NEAR, FAR):
            if not any(member.region in (ALL, region) for member in self.members):
                raise ConfigError(f"The model needs a member with the region {region} or all (got none).")

    def predict(self, matrix: Matrix) -> Vector:
        """Predict rows, shape (rows, features). The result, shape (rows,), is in the target's unit and within its bounds."""
        return in_chunks(lambda part: self.predict_with_columns(part)[:1], matrix)[0]

    def predict_with_columns(self, matrix: Matrix) -> tuple[Vector, Matrix]:
        """Return predictions, shape (rows,), and the columns of the first pipeline, shape (rows, names)."""
        columns: dict[int, Matrix] = {}
        predictions = self._combine(matrix, columns)
        if self.transform is not None:
            predictions = self.transform.to_target(predictions)
        return clip_to_bounds(self.schema, predictions), self._columns(0, matrix, columns)

    def predict_untransformed(self, matrix: Matrix) -> Vector:
        """Return what the members predict together, shape (rows,): the target or its logarithm, without bounds."""
        return in_chunks(lambda part: (self._combine(part, {}),), matrix)[0]

    def _combine(self, matrix: Matrix, columns: dict[int, Matrix]) -> Vector:
        if self.applicability is None:
            return self._mean(matrix, ALL, columns)
        return self._blend(matrix, self.applicability.proximity(matrix), columns)

    def _blend(self, matrix: Matrix, weight_near: Vector, columns: dict[int, Matrix]) -> Vector:
        predictions = np.zeros(len(matrix))
        for region, weight in ((NEAR, weight_near), (FAR, 1.0 - weight_near)):
            if weight.any():
                predictions += weight * self._mean(matrix, region, columns)
        return predictions

    def _mean(self, matrix: Matrix, region: str, columns: dict[int, Matrix]) -> Vector:
        members = [member for member in self.members if member.region in (ALL, region)]
        predictions = [member.weight * member.predict(self._columns(member.features, matrix, columns)) for member in members]
        return np.asarray(sum(predictions) / sum(member.weight for member in members))  # np.average of one row is slower

    def _columns(self, index: int, matrix: Matrix, cache: dict[int, Matrix]) -> Matrix:
        if index not in cache:
            cache[index] = self.features[index].transform(matrix)
        return cache[index]

    def to_config(self) -> dict[str, Any]:
        """Return members, applicability domain and transform, for `ensemble.json`."""
        return {
            "members": [member.config for member in self.members],
            "applicability": None if self.applicability is None else self.applicability.parameters,
            "log_target": None if self.transform is None else self.transform.to_config(),
        }


def in_chunks(predict: Callable[[Matrix], tuple[Vector, ...]], matrix: Matrix) -> tuple[Vector, ...]:
    """Predict the rows chunk by chunk, so that the memory for columns does not grow with the number of rows.

    Parameters
    ----------
    predict
        Returns vectors of shape (rows,) for rows of shape (rows, features).
    matrix
        All rows, shape (rows, features).
    """
    if len(matrix) <= CHUNK:
        return predict(matrix)
    parts = [predict(matrix[start : start + CHUNK]) for start in range(0, len(matrix), CHUNK)]
    return tuple(np.concatenate(vectors) for vectors in zip(*parts, strict=True))


def clip_to_bounds(schema: Schema, raw: Vector) -> Vector:
    """Clip predictions to the bounds of the target, if it has any."""
    target = schema.target
    return raw if target.min is None and target.max is None else np.clip(raw, target.min, target.max)


def restore_ensemble(
    schema: Schema, features: list[Features], estimators: list[Estimator], config: Mapping[str, Any], arrays: Mapping[str, Any]
) -> Ensemble:
    """Rebuild an ensemble from its parts and the result of `Ensemble.to_config`.

    `arrays` is the fitted state of its applicability domain.
    """
    members = [Member(estimator, **member) for estimator, member in zip(estimators, config["members"], strict=True)]
    applicability = ApplicabilityDomain.from_config(schema, config["applicability"])
    if applicability is not None:
        applicability.arrays |= dict(arrays)
    return Ensemble(schema, features, members, applicability, LogTransform.from_config(config["log_target"]))
