"""Neural network for tables in numpy, after RealMLP-TD-S.

Holzmüller, Grinsztajn, Steinwart, "Better by Default: Strong Pre-Tuned MLPs and Boosted Trees on Tabular Data", Advances in
Neural Information Processing Systems 37 (2024).
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin

from housing.core.validators import POSITIVE, integer
from housing.estimators.boosting import Report
from housing.estimators.neural_network import Layers, Network, sigmoid
from housing.estimators.weighted_rows import WeightedRows
from housing.schema.column import Matrix, Vector

FIRST_CYCLE = 17  # epochs; each cycle is twice as long as the one before
BOUND = 3.0  # scaled inputs tend towards it, so an extreme value has a limited influence


class NeuralRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A network with three hidden layers.

    The learning rate rises and falls in cycles of 17, 34, 68, 136 ... epochs. Only the network at the end of a cycle is of use.

    Attributes
    ----------
    epochs
        Passes over the training rows. A number between the ends of two cycles (17, 51, 119, 255) is moved to the nearer one.
    width
        Units of each hidden layer.
    batch_rows
        Rows of one step of the optimizer.
    learning_rate
        The highest learning rate of a cycle.
    """

    def __init__(
        self,
        epochs: int = 255,
        width: int = 128,
        batch_rows: int = 256,
        learning_rate: float = 0.07,
        random_state: int | None = None,
    ) -> None:
        for name, value in (("epochs", epochs), ("width", width), ("batch_rows", batch_rows)):
            integer(1).validate(name, value)
        POSITIVE.validate("learning_rate", learning_rate)
        self.epochs, self.width, self.batch_rows = epochs, width, batch_rows
        self.learning_rate, self.random_state = learning_rate, random_state

    def fit(self, columns: NDArray[Any], target: Vector, sample_weight: Vector | None = None) -> Self:
        """Fit all epochs. Raises ValueError if the weights of the network become infinite."""
        return self.fit_cycles(WeightedRows(columns, target, sample_weight), None, 0, lambda _, __: None)

    # pylint: disable=attribute-defined-outside-init  # scikit-learn's convention for what a fit learns
    def fit_cycles(self, training: WeightedRows, validation: WeightedRows | None, patience: int, report: Report) -> Self:
        """Fit, and keep the network of the cycle with the lowest error on the validation rows; of the last one without them.

        No cycle is started `patience` epochs after the best one. `report` receives each finished epoch.

        Raises
        ------
        ValueError
            If the weights of the network become infinite.
        """
        self.bound_, (self.center_, self.factor_) = BOUND, _robust_scale(training.columns)
        random = np.random.default_rng(self.random_state)
        network = Network(self._scaled(training.columns), training, self.width, random)
        start, best = 0, None
        for end in _cycle_ends(self.epochs):
            layers = self._fit_cycle(network, range(start, end), report, best)
            rmse = None if validation is None else self._rmse(layers, validation)
            if rmse is None or best is None or rmse < best:
                self.layers_, self.best_epochs_, best = layers, end, rmse
            elif end - self.best_epochs_ >= patience:
                break
            start = end
        return self

    def predict(self, columns: NDArray[Any]) -> Vector:
        """Return a prediction for each row, shape (rows,)."""
        return self._predict(self.layers_, columns)

    def _fit_cycle(self, network: Network, epochs: range, report: Report, score: float | None) -> Layers:
        def rate_in(epoch: int, share: float) -> float:
            return self.learning_rate * _height((epoch + share - epochs.start) / len(epochs))

        with np.errstate(over="ignore", invalid="ignore"):  # the error below says more
            for epoch in epochs:
                network.fit_epoch(self.batch_rows, partial(rate_in, epoch))
                report(epoch + 1, score)
        layers = network.layers()
        if not all(np.isfinite(part).all() for layer in layers for part in layer):
            raise ValueError(f"the network diverged with learning_rate={self.learning_rate:g}; use a lower one")
        return layers

    def _scaled(self, columns: NDArray[Any]) -> Matrix:
        scaled = (columns.astype(np.float64) - self.center_) * self.factor_
        clipped: Matrix = scaled / np.sqrt(1.0 + (scaled / self.bound_) ** 2)
        return clipped

    def _predict(self, layers: Layers, columns: NDArray[Any]) -> Vector:
        values = self._scaled(columns)
        for weight, bias in layers[:-1]:
            values = values @ weight + bias
            values *= sigmoid(values)
        weight, bias = layers[-1]
        predicted: Vector = (values @ weight + bias)[:, 0]
        return predicted

    def _rmse(self, layers: Layers, rows: WeightedRows) -> float:
        return float(np.sqrt(np.average((self._predict(layers, rows.columns) - rows.target) ** 2, weights=rows.weight)))


def _height(progress: float) -> float:
    """Return the learning rate at a share of a cycle, relative to its highest value: from 0 to 1 and back to 0."""
    return 0.5 - 0.5 * float(np.cos(2 * np.pi * np.log2(1 + progress)))


def _cycle_ends(epochs: int) -> Iterator[int]:
    """Yield the epochs at which cycles end, up to the end that is nearest to `epochs`."""
    end = length = FIRST_CYCLE
    yield end
    while epochs >= end + length:  # half of the next cycle
        length *= 2
        end += length
        yield end


def _robust_scale(columns: NDArray[Any]) -> tuple[Vector, Vector]:
    """Return the medians, and the factors that bring each column to an interquartile range of 1, or to a range of 2."""
    low, center, high = np.quantile(columns.astype(np.float64), (0.25, 0.5, 0.75), axis=0)
    spread, half_range = high - low, np.ptp(columns.astype(np.float64), axis=0) / 2
    divisor = np.where(spread > 0, spread, half_range)
    return center, np.divide(1.0, divisor, out=np.zeros_like(divisor), where=divisor > 0)
