"""Local Gaussian process: kriging on the nearest training rows, in a learned metric.

The hyperparameters maximise Vecchia's approximate likelihood, the likelihood of each row given its nearest rows: Vecchia,
"Estimation and Model Identification for Continuous Spatial Processes", J. R. Stat. Soc. B 50 (1988) 297-312. For a
prediction at row q, the covariance of two rows u and v is

    a^2 exp(-|S (u - v)|) + b^2 exp(-s |u_xy - v_xy|) + c^2 (u - q) . (v - q) + 1

S holds a scale per numeric column and coordinate, s is the scale of the spatial kernel, and u_xy are coordinates in 100 km.
The linear term c uses the numeric columns only.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.features.encoding import median
from housing.features.kd_tree import Indices, KdTree
from housing.features.spatial_index import project_to_km, require_counts
from housing.schema.column import Matrix, Vector
from housing.schema.declaration import UNORDERED_TYPES
from housing.schema.table_schema import Schema

CHUNK = 400  # rows per batch; each solves a linear system
EPSILON = 1e-10
INITIAL = {
    "column_scale": 0.35,
    "coordinate_scale": 3.0,
    "spatial_scale": 4.0,
    "a": 0.6,
    "noise": 0.2,
    "b": 0.4,
    "c": 0.4,
}  # start of the optimisation


class LocalGaussianProcess:
    """Predictive mean and standard deviation of a local Gaussian process, and mean targets of the nearest rows.

    "Nearest" refers to the learned metric. A training row is not a neighbour of itself. A table without coordinates gets no
    columns.

    Parameters
    ----------
    schema
        The columns of the table.
    neighbours
        Number of training rows that condition a prediction.
    target_means
        Numbers of nearest rows over which targets are averaged.
    log_target
        Whether to model the logarithm of the target, if all targets are above 0.
    n_fit_rows
        Number of random training rows whose likelihood is maximised.
    max_iter
        Iterations of the optimiser.
    seed
        Seed of that random choice.

    Attributes
    ----------
    arrays
        Fitted state. `rows`, shape (training rows, columns + 2), are the training rows in metric space, `targets` their
        targets, and `metric`, shape (columns + 7,), the logarithms of the hyperparameters: a scale per column, two
        coordinate scales, then spatial scale, a, noise, b and c.
    """

    is_local = True

    def __init__(
        self,
        schema: Schema,
        neighbours: int,
        target_means: Sequence[int],
        log_target: bool,
        n_fit_rows: int,
        max_iter: int,
        seed: int,
    ) -> None:
        require_counts(
            "gaussian_process", neighbours=[neighbours], target_means=target_means, n_fit_rows=[n_fit_rows], max_iter=[max_iter]
        )
        if max(target_means) > neighbours:
            raise ConfigError(
                f"Block gaussian_process: target_means must be at most neighbours={neighbours} (got {list(target_means)})."
            )
        coordinates = schema.coordinates()
        self.arrays: dict[str, NDArray[np.float64]] = {}
        self.coordinates = None if coordinates is None else list(coordinates)
        self.columns = [
            index
            for index, column in enumerate(schema.features)
            if column.type not in UNORDERED_TYPES and index not in (coordinates or ())
        ]
        self.neighbours, self.target_means, self.log_target = neighbours, np.asarray(target_means, dtype=int), log_target
        self.n_fit_rows, self.max_iter, self.seed = n_fit_rows, max_iter, seed
        prefix = "log_gp" if log_target else "gp"
        self.names = [f"{prefix}_mean", f"{prefix}_std", *(f"{prefix}_target_mean_of_{count}" for count in target_means)]
        self.names = [] if coordinates is None else self.names

    def fit(self, matrix: Matrix, target: Vector) -> Self:
        """Learn the metric from a sample of the training rows, and store all of them."""
        if self.coordinates is None:
            return self
        arrays = self.arrays
        arrays["latitude"] = matrix[:, self.coordinates[0]].mean(keepdims=True)
        columns = matrix[:, self.columns]
        arrays["medians"] = np.array([median(column) for column in columns.T])
        arrays["log"] = np.array([_is_skewed(column) for column in columns.T], dtype=np.float64)
        columns = self._clean(columns)
        arrays["floor"], arrays["ceiling"] = columns.min(axis=0), columns.max(axis=0)
        arrays["shift"], arrays["scale"] = columns.mean(axis=0), np.where(columns.std(axis=0) > 0, columns.std(axis=0), 1.0)
        is_log = self.log_target and bool((target > 0).all())
        transformed = np.log(target) if is_log else target
        arrays["target"] = np.array([transformed.mean(), transformed.std() or 1.0, float(is_log)])
        arrays["targets"] = target
        arrays["rows"] = self._to_metric_space(matrix)
        arrays["metric"] = self._initial_metric()
        random = np.random.default_rng(self.seed)
        for divisor in (1, 2):  # the nearest rows depend on the metric, so a second, shorter fit follows with new neighbours
            self.__dict__.pop("_tree", None)
            self.__dict__.pop("_transformed_target", None)
            self._maximise_likelihood(random, self.max_iter // divisor)
        self.__dict__.pop("_tree", None)
        return self

    def transform(self, matrix: Matrix) -> Matrix:
        """Return the columns of new rows, shape (rows, names)."""
        if self.coordinates is None:
            return np.empty((len(matrix), 0))
        rows = self._to_metric_space(matrix)
        return self._derive(rows, self._tree.query(rows * self._scales(), self.neighbours)[1])

    def fit_transform(self, matrix: Matrix, target: Vector, _weight: Vector | None = None) -> Matrix:
        """Fit, and return the leave-one-out columns of the training rows, shape (rows, names)."""
        self.fit(matrix, target)
        if self.coordinates is None:
            return np.empty((len(matrix), 0))
        return self._derive(self.arrays["rows"], self._tree.leave_one_out(self.neighbours)[1])

    def _clean(self, columns: Matrix) -> Matrix:
        """Return columns with medians for missing values, and logarithms of skewed columns."""
        filled = np.where(np.isnan(columns), self.arrays["medians"], columns)
        is_log = self.arrays["log"] > 0
        filled[:, is_log] = np.log(np.maximum(filled[:, is_log], EPSILON))
        return filled

    def _to_metric_space(self, matrix: Matrix) -> Matrix:
        """Return standardised numeric columns, then coordinates in 100 km, shape (rows, columns + 2)."""
        clipped = np.clip(self._clean(matrix[:, self.columns]), self.arrays["floor"], self.arrays["ceiling"])
        km = project_to_km(matrix[:, self.coordinates], self.arrays["latitude"][0])
        return np.hstack([(clipped - self.arrays["shift"]) / self.arrays["scale"], km / 100])

    @cached_property
    def _tree(self) -> KdTree:
        return KdTree(self.arrays["rows"] * self._scales())

    @cached_property
    def _transformed_target(self) -> Vector:
        """The standardised targets, or their standardised logarithms, shape (training rows,)."""
        mean, std, is_log = self.arrays["target"]
        return ((np.log(self.arrays["targets"]) if is_log else self.arrays["targets"]) - mean) / std

    def _scales(self) -> Vector:
        return np.exp(self.arrays["metric"][: len(self.columns) + 2])

    def _initial_metric(self) -> Vector:
        scales = [INITIAL["column_scale"]] * len(self.columns) + [INITIAL["coordinate_scale"]] * 2
        return np.log([*scales, *(INITIAL[name] for name in ("spatial_scale", "a", "noise", "b", "c"))])

    def _maximise_likelihood(self, random: np.random.Generator, max_iter: int) -> None:
        """Maximise the likelihood of a sample of rows, each given its nearest rows."""
        from scipy.optimize import minimize  # pylint: disable=import-outside-toplevel  # only training needs it

        rows = self.arrays["rows"]
        sample = random.permutation(len(rows))[: self.n_fit_rows]
        neighbours = self._tree.leave_one_out(self.neighbours)[1][sample]
        initial = self.arrays["metric"]

        def loss(metric: Vector) -> tuple[float, Vector]:
            value, gradient = self._loss(metric, rows[sample], neighbours, self._transformed_target[sample])
            penalty = 1e-3 * float(np.mean((metric - initial) ** 2))
            return value + penalty, gradient + 2e-3 * (metric - initial) / len(initial)

        bounds = [(value - 3, value + 3) for value in initial]
        result = minimize(loss, initial, jac=True, method="L-BFGS-B", options={"maxiter": max_iter}, bounds=bounds)
        self.arrays["metric"] = result.x

    def _loss(self, metric: Vector, rows: Matrix, neighbours: Indices, target: Vector) -> tuple[float, Vector]:
        """Return the mean negative log likelihood of rows given their nearest rows, and its gradient in the metric."""
        value, gradient = 0.0, np.zeros(len(metric))
        for start in range(0, len(rows), CHUNK):
            chunk = slice(start, start + CHUNK)
            system = _KrigingSystem(metric, self.arrays["rows"][neighbours[chunk]], rows[chunk])
            neighbour_targets = self._transformed_target[neighbours[chunk]]
            mean, variance, weights = system.solve(neighbour_targets)
            residual = target[chunk] - mean
            value += float(np.sum(0.5 * np.log(variance) + 0.5 * residual**2 / variance))
            d_variance = 0.5 / variance - 0.5 * residual**2 / variance**2
            gradient += system.gradient(weights, neighbour_targets, -residual / variance, d_variance)
        return value / len(rows), gradient / len(rows)

    def _derive(self, rows: Matrix, neighbours: Indices) -> Matrix:
        mean, std, is_log = self.arrays["target"]
        parts = []
        for start in range(0, len(rows), CHUNK):
            chunk = slice(start, start + CHUNK)
            system = _KrigingSystem(self.arrays["metric"], self.arrays["rows"][neighbours[chunk]], rows[chunk])
            predicted, variance, _ = system.solve(self._transformed_target[neighbours[chunk]])
            parts.append(np.column_stack([predicted * std + mean, np.sqrt(variance) * std]))
        columns = np.concatenate(parts) if parts else np.empty((0, 2))
        if is_log:
            columns[:, 0] = np.exp(columns[:, 0])
        means = self.arrays["targets"][neighbours].cumsum(axis=1)[:, self.target_means - 1] / self.target_means
        return np.hstack([columns, means])


class _Kernel:
    """The exponential kernel size^2 exp(-|u - v|), for each row among its neighbours and between them and the row.

    Parameters
    ----------
    points
        Scaled neighbours relative to their row, shape (rows, neighbours, dimensions). The row itself is the origin.
    size
        Standard deviation of the process.
    """

    def __init__(self, points: NDArray[np.float64], size: float) -> None:
        self.points, self.size = points, size
        self.distances, self.row_distances = _distances(points)
        self.covariance, self.row_covariance = size**2 * np.exp(-self.distances), size**2 * np.exp(-self.row_distances)

    def size_gradient(self, pairs: NDArray[np.float64], row: Matrix, prior: float) -> float:
        """Return the derivative of a function f by the logarithm of the size.

        Parameters
        ----------
        pairs
            Derivatives of f by the covariances among neighbours, shape (rows, neighbours, neighbours).
        row
            Derivatives of f by the covariances of neighbours and row, shape (rows, neighbours).
        prior
            Derivative of f by the prior variance.
        """
        return float(2 * (np.sum(pairs * self.covariance) + np.sum(row * self.row_covariance) + self.size**2 * prior))

    def scale_gradient(self, pairs: NDArray[np.float64], row: Matrix) -> float:
        """Return the derivative of f by the logarithm of one scale for all dimensions."""
        return float(-np.sum(pairs * self.covariance * self.distances) - np.sum(row * self.row_covariance * self.row_distances))

    def scale_gradients(self, pairs: NDArray[np.float64], row: Matrix) -> list[float]:
        """Return the derivatives of f by the logarithm of the scale of each dimension."""
        pairs, row = pairs * self.covariance / self.distances, row * self.row_covariance / self.row_distances
        factors = pairs.sum(axis=2) + pairs.sum(axis=1) + row  # of u^2 in (u - v)^2 = u^2 + v^2 - 2 u v
        squares = np.square(self.points) * factors[:, :, None] - 2 * self.points * (pairs @ self.points)
        return list(-squares.sum(axis=(0, 1)))


class _KrigingSystem:
    """The kriging equations of some rows and their neighbours.

    Parameters
    ----------
    metric
        Logarithms of the hyperparameters, shape (columns + 7,).
    neighbours
        Neighbours of each row in metric space, shape (rows, neighbours, columns + 2).
    rows
        The rows, shape (rows, columns + 2).
    """

    def __init__(self, metric: Vector, neighbours: Matrix, rows: Matrix) -> None:
        parameters, offsets = np.exp(metric), neighbours - rows[:, None]
        spatial_scale, a, self.noise, b, self.c = parameters[-5:].tolist()
        self.feature_kernel = _Kernel(offsets * parameters[:-5], a)
        self.spatial_kernel = _Kernel(offsets[:, :, -2:] * spatial_scale, b)
        linear = offsets[:, :, :-2]
        self.products = linear @ linear.transpose(0, 2, 1)
        self.covariance = self.feature_kernel.covariance + self.spatial_kernel.covariance + self.c**2 * self.products + 1.0
        diagonal = np.arange(neighbours.shape[1])
        self.covariance[:, diagonal, diagonal] += self.noise**2
        self.row_covariance = self.feature_kernel.row_covariance + self.spatial_kernel.row_covariance + 1.0

    def solve(self, target: Matrix) -> tuple[Vector, Vector, Matrix]:
        """Return mean and variance, shape (rows,), given the neighbours' targets, and the kriging weights.

        Targets and weights have the shape (rows, neighbours).
        """
        weights = np.linalg.solve(self.covariance, self.row_covariance[..., None])[..., 0]
        prior = self.feature_kernel.size**2 + self.spatial_kernel.size**2 + self.noise**2 + 1.0
        variance = prior - (weights * self.row_covariance).sum(axis=1)
        return (weights * target).sum(axis=1), np.maximum(variance, 1e-6), weights

    def gradient(self, weights: Matrix, target: Matrix, d_mean: Vector, d_variance: Vector) -> Vector:
        """Return the gradient of a function f in the metric, shape (columns + 7,).

        With the covariances K among neighbours and k with the row, w = K^-1 k and z = K^-1 target:
        d mean = dk z - w dK z, d variance = d prior - 2 w dk + w dK w.

        Parameters
        ----------
        weights, target
            Kriging weights and targets of the neighbours, shape (rows, neighbours).
        d_mean, d_variance
            Derivatives of f by the mean and the variance of each row, shape (rows,).
        """
        solved = np.linalg.solve(self.covariance, target[..., None])[..., 0]
        row = d_mean[:, None] * solved - 2 * d_variance[:, None] * weights  # multiplies dk
        pairs = weights[:, :, None] * (d_variance[:, None] * weights - d_mean[:, None] * solved)[:, None]  # multiplies dK
        prior = float(d_variance.sum())
        return np.array(
            [
                *self.feature_kernel.scale_gradients(pairs, row),
                self.spatial_kernel.scale_gradient(pairs, row),
                self.feature_kernel.size_gradient(pairs, row, prior),
                2 * self.noise**2 * (np.trace(pairs, axis1=1, axis2=2).sum() + prior),
                self.spatial_kernel.size_gradient(pairs, row, prior),
                2 * self.c**2 * np.sum(pairs * self.products),
            ]
        )


def _distances(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], Matrix]:
    """Return the distances among points, shape (rows, points, points), and to the origin, shape (rows, points)."""
    squares = np.square(points).sum(axis=2)
    pair_squares = squares[:, :, None] + squares[:, None] - 2 * points @ points.transpose(0, 2, 1)
    return np.sqrt(np.maximum(pair_squares, 0.0) + EPSILON), np.sqrt(squares + EPSILON)


def _is_skewed(column: Vector) -> bool:
    """Return whether all values are above 0 and their skewness is above 1."""
    present = column[~np.isnan(column)]
    if not present.size or present.min() <= 0 or not present.std():
        return False
    return bool(np.mean(((present - present.mean()) / present.std()) ** 3) > 1.0)
