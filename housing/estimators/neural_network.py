"""Training of a neural network in numpy: gradients of the squared error, and steps of Adam."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from housing.estimators.weighted_rows import WeightedRows
from housing.schema.column import Matrix, Vector

N_HIDDEN = 3  # layers
SCALE_RATE, BIAS_RATE = 6.0, 0.1  # learning rates of the input scales and of the biases, relative to that of the weights
MOMENTUM, SQUARES_MOMENTUM = 0.9, 0.95  # of Adam

Array32 = NDArray[np.float32]
Layers = list[tuple[Matrix, Vector]]  # the weights and biases


class Network:
    """Weights in training. They are parts of one array, so that a step of Adam is one for all of them."""

    def __init__(self, scaled: Matrix, training: WeightedRows, width: int, random: np.random.Generator) -> None:
        self._random = random
        self._center, self._deviation = float(np.mean(training.target)), float(np.std(training.target)) or 1.0
        target = (training.target - self._center) / self._deviation
        weight = np.ones(len(scaled)) if training.weight is None else training.weight / training.weight.mean()
        self._rows: list[Array32] = [values.astype(np.float32) for values in (scaled, target, weight)]
        sizes = [scaled.shape[1], *[width] * N_HIDDEN, 1]
        shapes: list[tuple[int, ...]] = [(scaled.shape[1],)]
        shapes += [shape for size, following in pairwise(sizes) for shape in ((size, following), (following,))]
        n_parameters = sum(math.prod(shape) for shape in shapes)
        self._all, self._gradient, self._rates, self._mean, self._squares = np.zeros((5, n_parameters), dtype=np.float32)
        self._parts, self._gradients = _views(self._all, shapes), _views(self._gradient, shapes)
        self._n_steps = 0
        for part, rates in zip(self._parts, _views(self._rates, shapes), strict=True):
            rates[...] = 1.0 if part.ndim == 2 else BIAS_RATE
        _views(self._rates, shapes)[0][...] = SCALE_RATE
        self._parts[0][...] = 1.0
        for part in self._parts[1:-2]:  # those of the output start at 0, the mean of the scaled target
            part[...] = random.standard_normal(part.shape)

    def fit_epoch(self, batch_rows: int, rates: Callable[[float], float]) -> None:
        """Take a step for each batch of the shuffled rows. `rates` returns the learning rate after a share of the epoch."""
        n_rows = len(self._rows[0])
        batches = np.array_split(self._random.permutation(n_rows), max(1, n_rows // batch_rows))
        for index, batch in enumerate(batches):
            self._step(batch, rates(index / len(batches)))

    def layers(self) -> Layers:
        """Return the weights and biases of plain layers, from scaled inputs to predictions in the target's unit."""
        parts = [part.astype(np.float64) for part in self._parts]
        layers = [(weight / np.sqrt(len(weight)), bias) for weight, bias in zip(parts[1::2], parts[2::2], strict=True)]
        (first, first_bias), (last, last_bias) = layers[0], layers[-1]
        layers[0] = parts[0][:, None] * first, first_bias
        layers[-1] = self._deviation * last, self._deviation * last_bias + self._center
        return layers

    def _step(self, batch: NDArray[np.intp], rate: float) -> None:
        """Lower the squared error of a batch by one step of Adam."""
        self._compute_gradient(*(values[batch] for values in self._rows))
        self._n_steps += 1
        self._mean += np.float32(1 - MOMENTUM) * (self._gradient - self._mean)
        self._squares += np.float32(1 - SQUARES_MOMENTUM) * (self._gradient**2 - self._squares)
        deviation = np.sqrt(self._squares / np.float32(1 - SQUARES_MOMENTUM**self._n_steps)) + np.float32(1e-8)
        self._all -= np.float32(rate / (1 - MOMENTUM**self._n_steps)) * self._rates * self._mean / deviation

    def _compute_gradient(self, rows: Array32, target: Array32, weight: Array32) -> None:
        scale, weights, biases = self._parts[0], self._parts[1::2], self._parts[2::2]
        values, inputs, slopes = rows * scale, [], []
        for layer_weight, bias in zip(weights, biases, strict=True):
            inputs.append(values)
            sums = values @ layer_weight * _fan_in_factor(layer_weight) + bias
            gate = sigmoid(sums)
            values = sums * gate
            slopes.append(gate + values * (1 - gate))
        # `sums` of the last layer are the predictions: it has no activation
        error = (np.float32(2 / len(rows)) * weight * (sums[:, 0] - target))[:, None]
        for index in reversed(range(len(weights))):
            if index < len(weights) - 1:
                error *= slopes[index]
            factor = _fan_in_factor(weights[index])
            self._gradients[2 * index + 1][...] = inputs[index].T @ error * factor
            self._gradients[2 * index + 2][...] = error.sum(axis=0)
            error = error @ weights[index].T * factor
        self._gradients[0][...] = (error * rows).sum(axis=0)


def _views(array: Array32, shapes: Sequence[tuple[int, ...]]) -> list[Array32]:
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(array, ends[:-1]), shapes, strict=True)]


def _fan_in_factor(weight: Array32) -> np.float32:
    return np.float32(1 / np.sqrt(len(weight)))


def sigmoid(values: NDArray[Any]) -> Any:
    """Return the logistic function of each value. The exponential would overflow."""
    return 0.5 * np.tanh(0.5 * values) + 0.5
