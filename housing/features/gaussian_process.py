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
from housing.features.spatial_index import Indices, require_counts, search, search_others, to_km, tree
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

CHUNK = 400  # rows at a time: each solves a system of equations


TINY = 1e-10


FIRST = {"column": 0.35, "place": 3.0, "places": 4.0, "a": 0.6, "noise": 0.2, "b": 0.4, "c": 0.4}  # before anything is learned


class LocalProcess:
    """For each row the process's mean and standard deviation, and mean targets of the rows nearest in its metric.

    A training row is left out of its own neighbours. With `log_target` the process works on the logarithm of the target
    (where all are above 0). No column where the table has no coordinates.
    """

    is_local = True

    def __init__(
        self,
        schema: Schema,
        neighbours: int,
        targets_of: Sequence[int],
        log_target: bool,
        learned_on: int,
        rounds: int,
        seed: int,
    ) -> None:
        require_counts("local_process", neighbours=[neighbours], targets_of=targets_of, learned_on=[learned_on], rounds=[rounds])
        if max(targets_of) > neighbours:
            raise ConfigError(
                f"features: block local_process: targets_of is {list(targets_of)}; allowed: up to {neighbours} neighbours"
            )
        coordinates = schema.coordinates()
        self.arrays: dict[str, NDArray[np.float64]] = {}
        self.coordinates = None if coordinates is None else list(coordinates)
        self.columns = [p for p, c in enumerate(schema.features) if c.type != "category" and p not in (coordinates or ())]
        self.neighbours, self.targets_of, self.log_target = neighbours, np.asarray(targets_of, dtype=int), log_target
        self.learned_on, self.rounds, self.seed = learned_on, rounds, seed
        kind = "log_process" if log_target else "process"
        self.names = [f"{kind}_mean", f"{kind}_spread", *(f"{kind}_target_of_{count}_alike" for count in targets_of)]
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
        columns = self._plain(columns)
        arrays["floor"], arrays["ceiling"] = columns.min(axis=0), columns.max(axis=0)
        arrays["shift"], arrays["scale"] = columns.mean(axis=0), np.where(columns.std(axis=0) > 0, columns.std(axis=0), 1.0)
        logs = self.log_target and bool((target > 0).all())
        worked = np.log(target) if logs else target
        arrays["target"] = np.array([worked.mean(), worked.std() or 1.0, float(logs)])
        arrays["targets"] = target
        arrays["rows"] = self._rows(matrix)
        arrays["metric"] = self._first_metric()
        random = np.random.default_rng(self.seed)
        for part in (1, 2):  # the nearest rows hang on the metric, and are found again
            self.__dict__.pop("_tree", None)
            self.__dict__.pop("_worked", None)
            self._learn(random, self.rounds // part)
        self.__dict__.pop("_tree", None)
        return self

    def transform(self, matrix: Matrix) -> Matrix:
        """Give the columns, shape (rows, names)."""
        if self.coordinates is None:
            return np.empty((len(matrix), 0))
        rows = self._rows(matrix)
        return self._derive(rows, search(self._tree, rows * self._scales(), self.neighbours)[1])

    def fit_transform(self, matrix: Matrix, target: Vector) -> Matrix:
        """Learn, and give the columns of the training rows themselves, each without itself."""
        self.fit(matrix, target)
        if self.coordinates is None:
            return np.empty((len(matrix), 0))
        return self._derive(self.arrays["rows"], search_others(self._tree, self.neighbours)[1])

    def _plain(self, columns: Matrix) -> Matrix:
        """Give columns without gaps, those of a long tail as logarithms."""
        filled = np.where(np.isnan(columns), self.arrays["medians"], columns)
        logs = self.arrays["log"] > 0
        filled[:, logs] = np.log(np.maximum(filled[:, logs], TINY))
        return filled

    def _rows(self, matrix: Matrix) -> Matrix:
        """Give rows as the metric takes them: columns without unit, then places in 100 km."""
        plain = np.clip(self._plain(matrix[:, self.columns]), self.arrays["floor"], self.arrays["ceiling"])
        km = to_km(matrix[:, self.coordinates], self.arrays["latitude"][0])
        return np.hstack([(plain - self.arrays["shift"]) / self.arrays["scale"], km / 100])

    @cached_property
    def _tree(self) -> "cKDTree":
        return tree(self.arrays["rows"] * self._scales())

    @cached_property
    def _worked(self) -> Vector:
        """The targets as the process sees them: centred, without unit, perhaps logarithms."""
        mean, spread, logs = self.arrays["target"]
        return ((np.log(self.arrays["targets"]) if logs else self.arrays["targets"]) - mean) / spread

    def _scales(self) -> Vector:
        return np.exp(self.arrays["metric"][: len(self.columns) + 2])

    def _first_metric(self) -> Vector:
        scales = [FIRST["column"]] * len(self.columns) + [FIRST["place"]] * 2
        return np.log([*scales, *(FIRST[name] for name in ("places", "a", "noise", "b", "c"))])

    def _learn(self, random: np.random.Generator, rounds: int) -> None:
        """Climb the likelihood of some rows, each given its nearest ones."""
        from scipy.optimize import minimize  # pylint: disable=import-outside-toplevel  # of training alone

        rows = self.arrays["rows"]
        some = random.permutation(len(rows))[: self.learned_on]
        near = search_others(self._tree, self.neighbours)[1][some]
        first = self.arrays["metric"]

        def loss(metric: Vector) -> tuple[float, Vector]:
            value, slope = self._loss(metric, rows[some], near, self._worked[some])
            return value + 1e-3 * float(np.mean((metric - first) ** 2)), slope + 2e-3 * (metric - first) / len(first)

        bounds = [(start - 3, start + 3) for start in first]
        found = minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": rounds}, bounds=bounds)
        self.arrays["metric"] = found.x

    def _loss(self, metric: Vector, rows: Matrix, near: Indices, target: Vector) -> tuple[float, Vector]:
        """Give the mean negative log likelihood of rows given their nearest ones, and its slope along the metric."""
        value, slope = 0.0, np.zeros(len(metric))
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            system = _System(metric, self.arrays["rows"][near[part]], rows[part])
            mean, variance, weights = system.solve(self._worked[near[part]])
            off = target[part] - mean
            value += float(np.sum(0.5 * np.log(variance) + 0.5 * off**2 / variance))
            slope += system.slope(weights, self._worked[near[part]], -off / variance, 0.5 / variance - 0.5 * off**2 / variance**2)
        return value / len(rows), slope / len(rows)

    def _derive(self, rows: Matrix, near: Indices) -> Matrix:
        mean, spread, logs = self.arrays["target"]
        parts = []
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            system = _System(self.arrays["metric"], self.arrays["rows"][near[part]], rows[part])
            predicted, variance, _ = system.solve(self._worked[near[part]])
            parts.append(np.column_stack([predicted * spread + mean, np.sqrt(variance) * spread]))
        columns = np.concatenate(parts) if parts else np.empty((0, 2))
        if logs:
            columns[:, 0] = np.exp(columns[:, 0])
        means = self.arrays["targets"][near].cumsum(axis=1)[:, self.targets_of - 1] / self.targets_of
        return np.hstack([columns, means])


class _Kernel:
    """The covariance size^2 exp(-|u - v|) among points, and between each and the origin, with points already scaled."""

    def __init__(self, points: NDArray[np.float64], size: float) -> None:
        self.points, self.size = points, size
        self.apart, self.from_row = _distances(points)
        self.among, self.to_row = size**2 * np.exp(-self.apart), size**2 * np.exp(-self.from_row)

    def slope_of_size(self, pairs: NDArray[np.float64], row: Matrix, prior: float) -> float:
        """Give how a sum moves with the logarithm of the size, when it moves `pairs` with each covariance among points,
        `row` with each to the origin, and `prior` with that of the origin itself.
        """
        return float(2 * (np.sum(pairs * self.among) + np.sum(row * self.to_row) + self.size**2 * prior))

    def slope_of_scale(self, pairs: NDArray[np.float64], row: Matrix) -> float:
        """Give how it moves with the logarithm of one scale for all axes."""
        return float(-np.sum(pairs * self.among * self.apart) - np.sum(row * self.to_row * self.from_row))

    def slopes_of_scales(self, pairs: NDArray[np.float64], row: Matrix) -> list[float]:
        """Give how it moves with the logarithm of each axis' scale."""
        pairs, row = pairs * self.among / self.apart, row * self.to_row / self.from_row
        ends = pairs.sum(axis=2) + pairs.sum(axis=1) + row  # what multiplies u^2 where (u - v)^2 = u^2 + v^2 - 2 u v
        squares = np.square(self.points) * ends[:, :, None] - 2 * self.points * (pairs @ self.points)
        return list(-squares.sum(axis=(0, 1)))


class _System:
    """The covariances among the nearest rows of some rows, and between them and each row."""

    def __init__(self, metric: Vector, near: Matrix, rows: Matrix) -> None:
        size, apart = np.exp(metric), near - rows[:, None]
        places, a, self.noise, b, self.c = size[-5:].tolist()
        self.alike, self.placed = _Kernel(apart * size[:-5], a), _Kernel(apart[:, :, -2:] * places, b)
        linear = apart[:, :, :-2]
        self.products = linear @ linear.transpose(0, 2, 1)
        self.covariance = self.alike.among + self.placed.among + self.c**2 * self.products + 1.0
        diagonal = np.arange(near.shape[1])
        self.covariance[:, diagonal, diagonal] += self.noise**2
        self.with_row = self.alike.to_row + self.placed.to_row + 1.0

    def solve(self, target: Matrix) -> tuple[Vector, Vector, Matrix]:
        """Give mean and variance of each row given the targets of its nearest ones, and their weights."""
        weights = np.linalg.solve(self.covariance, self.with_row[..., None])[..., 0]
        prior = self.alike.size**2 + self.placed.size**2 + self.noise**2 + 1.0
        variance = prior - (weights * self.with_row).sum(axis=1)
        return (weights * target).sum(axis=1), np.maximum(variance, 1e-6), weights

    def slope(self, weights: Matrix, target: Matrix, by_mean: Vector, by_variance: Vector) -> Vector:
        """Give how a sum over rows moves with the metric, when it moves `by_mean` and `by_variance` with each row's two.

        With K the covariances, k those with the row, w = K^-1 k and z = K^-1 target:
        d mean = dk z - w dK z, d variance = d(prior) - 2 w dk + w dK w.
        """
        solved = np.linalg.solve(self.covariance, target[..., None])[..., 0]
        row = by_mean[:, None] * solved - 2 * by_variance[:, None] * weights  # multiplies dk
        pairs = weights[:, :, None] * (by_variance[:, None] * weights - by_mean[:, None] * solved)[:, None]  # multiplies dK
        prior = float(by_variance.sum())
        return np.array(
            [
                *self.alike.slopes_of_scales(pairs, row),
                self.placed.slope_of_scale(pairs, row),
                self.alike.slope_of_size(pairs, row, prior),
                2 * self.noise**2 * (np.trace(pairs, axis1=1, axis2=2).sum() + prior),
                self.placed.slope_of_size(pairs, row, prior),
                2 * self.c**2 * np.sum(pairs * self.products),
            ]
        )


def _distances(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], Matrix]:
    """Give the distances among points, and from each to the origin."""
    squares = np.square(points).sum(axis=2)
    among = squares[:, :, None] + squares[:, None] - 2 * points @ points.transpose(0, 2, 1)
    return np.sqrt(np.maximum(among, 0.0) + TINY), np.sqrt(squares + TINY)


def _is_skewed(column: Vector) -> bool:
    """Whether all values are above 0 and have a long tail."""
    present = column[~np.isnan(column)]
    if not present.size or present.min() <= 0 or not present.std():
        return False
    return bool(np.mean(((present - present.mean()) / present.std()) ** 3) > 1.0)
