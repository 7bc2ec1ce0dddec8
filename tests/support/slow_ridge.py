"""A model whose fits take a known time."""

import time
from typing import Any, Self

from sklearn.linear_model import Ridge


class SlowRidge(Ridge):  # type: ignore[misc]  # pylint: disable=too-many-ancestors  # of scikit-learn
    """A ridge regression that takes `seconds` longer to fit."""

    def __init__(self, alpha: float = 1.0, *, seconds: float = 0.0) -> None:
        super().__init__(alpha)
        self.seconds = seconds

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit after a pause."""
        time.sleep(self.seconds)
        super().fit(X, y, sample_weight)
        return self
