"""A Gaussian process on the training rows nearest to a row, in a metric that is learned.

Vecchia, "Estimation and Model Identification for Continuous Spatial Processes", J. R. Stat. Soc. B 50 (1988) 297-312:
the likelihood of each row given its nearest ones. The covariance of two rows is

    a exp(-|S (u - v)|) + b exp(-s |places of u - v|) + c (u - q)(v - q) + 1

with u, v the rows' columns and places, q the row that is predicted, and a scale for each column in S.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from housing.core.errors import ConfigError
from housing.features.encoding import median
from housing.features.spatial_index import Indices, build_kd_tree, project_to_km, query, query_leave_one_out, require_counts
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

CHUNK = 400  # rows at a time: each solves a system of equations


EPSILON = 1e-10


INITIAL = {
    "column_scale": 0.35,
    "coordinate_scale": 3.0,
    "spatial_scale": 4.0,
    "a": 0.6,
    "noise": 0.2,
    "b": 0.4,
    "c": 0.4,
}  # before anything is learned


class LocalGaussianProcess:
    """For each row the process's mean and standard deviation, and mean targets of the rows nearest in its metric.

    A training row is left out of its own neighbours. With `log_target` the process works on the logarithm of the target
    (where all are above 0). No column where the table has no coordinates.
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
                f"features: block gaussian_process: target_means is {list(target_means)}; allowed: up to {neighbours} neighbours"
            )
        coordinates = schema.coordinates()
        self.arrays: dict[str, NDArray[np.float64]] = {}
        self.coordinates = None if coordinates is None else list(coordinates)
        self.columns = [p for p, c in enumerate(schema.features) if c.type != "category" and p not in (coordinates or ())]
        self.neighbours, self.target_means, self.log_target = neighbours, np.asarray(target_means, dtype=int), log_target
        self.n_fit_rows, self.max_iter, self.seed = n_fit_rows, max_iter, seed
        kind = "log_gp" if log_target else "gp"
        self.names = [f"{kind}_mean", f"{kind}_std", *(f"{kind}_target_mean_of_{count}" for count in target_means)]
        self.names = [] if coordinates is None else self.names

    def fit(self, matrix: Matrix, target: Vector) -> Self:
        """Learn the metric on some rows, and keep all."""
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
        logs = self.log_target and bool((target > 0).all())
        worked = np.log(target) if logs else target
        arrays["target"] = np.array([worked.mean(), worked.std() or 1.0, float(logs)])
        arrays["targets"] = target
        arrays["rows"] = self._to_metric_space(matrix)
        arrays["metric"] = self._initial_metric()
        random = np.random.default_rng(self.seed)
        for part in (1, 2):  # the nearest rows hang on the metric, and are found again
            self.__dict__.pop("_tree", None)
            self.__dict__.pop("_transformed_target", None)
            self._maximise_likelihood(random, self.max_iter // part)
        self.__dict__.pop("_tree", None)
        return self

    def transform(self, matrix: Matrix) -> Matrix:
        """Give the columns, shape (rows, names)."""
        if self.coordinates is None:
            return np.empty((len(matrix), 0))
        rows = self._to_metric_space(matrix)
        return self._derive(rows, query(self._tree, rows * self._scales(), self.neighbours)[1])

    def fit_transform(self, matrix: Matrix, target: Vector) -> Matrix:
        """Learn, and give the columns of the training rows themselves, each without itself."""
        self.fit(matrix, target)
        if self.coordinates is None:
            return np.empty((len(matrix), 0))
        return self._derive(self.arrays["rows"], query_leave_one_out(self._tree, self.neighbours)[1])

    def _clean(self, columns: Matrix) -> Matrix:
        """Give columns without gaps, those of a long tail as logarithms."""
        filled = np.where(np.isnan(columns), self.arrays["medians"], columns)
        logs = self.arrays["log"] > 0
        filled[:, logs] = np.log(np.maximum(filled[:, logs], EPSILON))
        return filled

    def _to_metric_space(self, matrix: Matrix) -> Matrix:
        """Give rows as the metric takes them: columns without unit, then places in 100 km."""
        plain = np.clip(self._clean(matrix[:, self.columns]), self.arrays["floor"], self.arrays["ceiling"])
        km = project_to_km(matrix[:, self.coordinates], self.arrays["latitude"][0])
        return np.hstack([(plain - self.arrays["shift"]) / self.arrays["scale"], km / 100])

    @cached_property
    def _tree(self) -> "cKDTree":
        return build_kd_tree(self.arrays["rows"] * self._scales())

    @cached_property
    def _transformed_target(self) -> Vector:
        """The targets as the process sees them: centred, without unit, perhaps logarithms."""
        mean, spread, logs = self.arrays["target"]
        return ((np.log(self.arrays["targets"]) if logs else self.arrays["targets"]) - mean) / spread

    def _scales(self) -> Vector:
        return np.exp(self.arrays["metric"][: len(self.columns) + 2])

    def _initial_metric(self) -> Vector:
        scales = [INITIAL["column_scale"]] * len(self.columns) + [INITIAL["coordinate_scale"]] * 2
        return np.log([*scales, *(INITIAL[name] for name in ("spatial_scale", "a", "noise", "b", "c"))])

    def _maximise_likelihood(self, random: np.random.Generator, max_iter: int) -> None:
        """Climb the likelihood of some rows, each given its nearest ones."""
        from scipy.optimize import minimize  # pylint: disable=import-outside-toplevel  # of training alone

        rows = self.arrays["rows"]
        some = random.permutation(len(rows))[: self.n_fit_rows]
        near = query_leave_one_out(self._tree, self.neighbours)[1][some]
        first = self.arrays["metric"]

        def loss(metric: Vector) -> tuple[float, Vector]:
            value, slope = self._loss(metric, rows[some], near, self._transformed_target[some])
            return value + 1e-3 * float(np.mean((metric - first) ** 2)), slope + 2e-3 * (metric - first) / len(first)

        bounds = [(start - 3, start + 3) for start in first]
        found = minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": max_iter}, bounds=bounds)
        self.arrays["metric"] = found.x

    def _loss(self, metric: Vector, rows: Matrix, near: Indices, target: Vector) -> tuple[float, Vector]:
        """Give the mean negative log likelihood of rows given their nearest ones, and its slope along the metric."""
        value, slope = 0.0, np.zeros(len(metric))
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            system = _KrigingSystem(metric, self.arrays["rows"][near[part]], rows[part])
            mean, variance, weights = system.solve(self._transformed_target[near[part]])
            off = target[part] - mean
            value += float(np.sum(0.5 * np.log(variance) + 0.5 * off**2 / variance))
            slope += system.gradient(
                weights, self._transformed_target[near[part]], -off / variance, 0.5 / variance - 0.5 * off**2 / variance**2
            )
        return value / len(rows), slope / len(rows)

    def _derive(self, rows: Matrix, near: Indices) -> Matrix:
        mean, spread, logs = self.arrays["target"]
        parts = []
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            system = _KrigingSystem(self.arrays["metric"], self.arrays["rows"][near[part]], rows[part])
            predicted, variance, _ = system.solve(self._transformed_target[near[part]])
            parts.append(np.column_stack([predicted * spread + mean, np.sqrt(variance) * spread]))
        columns = np.concatenate(parts) if parts else np.empty((0, 2))
        if logs:
            columns[:, 0] = np.exp(columns[:, 0])
        means = self.arrays["targets"][near].cumsum(axis=1)[:, self.target_means - 1] / self.target_means
        return np.hstack([columns, means])


class _Kernel:
    """The covariance size^2 exp(-|u - v|) among points, and between each and the origin, with points already scaled."""

    def __init__(self, points: NDArray[np.float64], size: float) -> None:
        self.points, self.size = points, size
        self.distances, self.row_distances = _distances(points)
        self.covariance, self.row_covariance = size**2 * np.exp(-self.distances), size**2 * np.exp(-self.row_distances)

    def size_gradient(self, pairs: NDArray[np.float64], row: Matrix, prior: float) -> float:
        """Give how a sum moves with the logarithm of the size, when it moves `pairs` with each covariance among points,
        `row` with each to the origin, and `prior` with that of the origin itself.
        """
        return float(2 * (np.sum(pairs * self.covariance) + np.sum(row * self.row_covariance) + self.size**2 * prior))

    def scale_gradient(self, pairs: NDArray[np.float64], row: Matrix) -> float:
        """Give how it moves with the logarithm of one scale for all axes."""
        return float(-np.sum(pairs * self.covariance * self.distances) - np.sum(row * self.row_covariance * self.row_distances))

    def scale_gradients(self, pairs: NDArray[np.float64], row: Matrix) -> list[float]:
        """Give how it moves with the logarithm of each axis' scale."""
        pairs, row = pairs * self.covariance / self.distances, row * self.row_covariance / self.row_distances
        ends = pairs.sum(axis=2) + pairs.sum(axis=1) + row  # what multiplies u^2 where (u - v)^2 = u^2 + v^2 - 2 u v
        squares = np.square(self.points) * ends[:, :, None] - 2 * self.points * (pairs @ self.points)
        return list(-squares.sum(axis=(0, 1)))


class _KrigingSystem:
    """The covariances among the nearest rows of some rows, and between them and each row."""

    def __init__(self, metric: Vector, near: Matrix, rows: Matrix) -> None:
        size, apart = np.exp(metric), near - rows[:, None]
        places, a, self.noise, b, self.c = size[-5:].tolist()
        self.feature_kernel, self.spatial_kernel = _Kernel(apart * size[:-5], a), _Kernel(apart[:, :, -2:] * places, b)
        linear = apart[:, :, :-2]
        self.products = linear @ linear.transpose(0, 2, 1)
        self.covariance = self.feature_kernel.covariance + self.spatial_kernel.covariance + self.c**2 * self.products + 1.0
        diagonal = np.arange(near.shape[1])
        self.covariance[:, diagonal, diagonal] += self.noise**2
        self.row_covariance = self.feature_kernel.row_covariance + self.spatial_kernel.row_covariance + 1.0

    def solve(self, target: Matrix) -> tuple[Vector, Vector, Matrix]:
        """Give mean and variance of each row given the targets of its nearest ones, and their weights."""
        weights = np.linalg.solve(self.covariance, self.row_covariance[..., None])[..., 0]
        prior = self.feature_kernel.size**2 + self.spatial_kernel.size**2 + self.noise**2 + 1.0
        variance = prior - (weights * self.row_covariance).sum(axis=1)
        return (weights * target).sum(axis=1), np.maximum(variance, 1e-6), weights

    def gradient(self, weights: Matrix, target: Matrix, d_mean: Vector, d_variance: Vector) -> Vector:
        """Give how a sum over rows moves with the metric, when it moves `by_mean` and `by_variance` with each row's two.

        With K the covariances, k those with the row, w = K^-1 k and z = K^-1 target:
        d mean = dk z - w dK z, d variance = d(prior) - 2 w dk + w dK w.
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
    """Give the distances among points, and from each to the origin."""
    squares = np.square(points).sum(axis=2)
    among = squares[:, :, None] + squares[:, None] - 2 * points @ points.transpose(0, 2, 1)
    return np.sqrt(np.maximum(among, 0.0) + EPSILON), np.sqrt(squares + EPSILON)


def _is_skewed(column: Vector) -> bool:
    """Whether all values are above 0 and have a long tail."""
    present = column[~np.isnan(column)]
    if not present.size or present.min() <= 0 or not present.std():
        return False
    return bool(np.mean(((present - present.mean()) / present.std()) ** 3) > 1.0)
