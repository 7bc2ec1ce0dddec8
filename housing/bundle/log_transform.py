"""Logarithm of the target: estimators predict logarithms, and a model predicts the mean of the target in its own unit.

Duan, "Smearing Estimate: A Nonparametric Retransformation Method", Journal of the American Statistical Association 78 (1983)
605-610. The exponential of a mean logarithm is below the mean; the factor that corrects it comes from held-out rows. Duan takes
the mean of exp(residual). Here rows count by their exponential: a row with a logarithm far too low would decide a plain mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from housing.core.errors import ConfigError
from housing.schema.column import Vector

MAX_LOG = 300.0  # a linear model can extrapolate to logarithms whose exponential is no finite number


@dataclass(frozen=True)
class LogTransform:
    """A fitted transform.

    Attributes
    ----------
    smearing
        The smearing factor: the mean target divided by the mean exponential.
    """

    smearing: float

    def __post_init__(self) -> None:
        """Validate the factor."""
        if not (np.isfinite(self.smearing) and self.smearing > 0):
            raise ConfigError(
                f"The smearing factor of a logarithmic target must be a finite number above 0 (got {self.smearing})."
            )

    @classmethod
    def fit(cls, logs: Vector, actual: Vector, weight: Vector | None) -> Self:
        """Estimate the factor from predicted logarithms and targets of held-out rows."""
        exponentials = np.exp(np.clip(logs, -MAX_LOG, MAX_LOG))
        return cls(float(np.average(actual, weights=weight) / np.average(exponentials, weights=weight)))

    def to_target(self, logs: Vector) -> Vector:
        """Return the mean target of each predicted logarithm, shape (rows,)."""
        return np.asarray(np.exp(np.minimum(logs, MAX_LOG)) * self.smearing)

    def to_config(self) -> dict[str, float]:
        """Return the parameters, which `from_config` reads."""
        return {"smearing": self.smearing}

    @classmethod
    def from_config(cls, parameters: Mapping[str, Any] | None) -> Self | None:
        """Return the transform, or None if a model predicts the target itself."""
        return None if parameters is None else cls(float(parameters["smearing"]))
