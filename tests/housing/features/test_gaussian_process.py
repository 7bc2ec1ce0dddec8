"""The local Gaussian process: the gradient of its likelihood, its predictions, and no leakage of a row's own target."""

from typing import Any

import numpy as np
import pytest

from housing.core.errors import ConfigError
from housing.data.table import Table
from housing.features.gaussian_process import LocalGaussianProcess
from housing.features.kd_tree import KdTree
from housing.schema.column import Matrix, Vector
from housing.schema.table_schema import Schema
from tests.support.tables import COORDINATES, rentals_frame

SCHEMA = Schema.from_dict(
    {
        "name": "plain",
        "columns": {
            **COORDINATES,
            "a": {"type": "float", "nullable": True},
            "y": {"type": "float", "role": "target"},
        },
    }
)
ROW_ARRAYS = ("rows", "targets")  # arrays with an entry per training row


def process(schema: Schema = SCHEMA, **changes: Any) -> LocalGaussianProcess:
    """Return a small process, by default of the target itself and not of its logarithm."""
    parameters = {"neighbours": 12, "target_means": [1, 12], "log_target": False, "n_fit_rows": 60, "max_iter": 8, "seed": 0}
    return LocalGaussianProcess(schema, **{**parameters, **changes})


def smooth(rows: int, seed: int) -> tuple[Matrix, Vector]:
    """Return rows and targets of a smooth function of coordinates and a column."""
    random = np.random.default_rng(seed)
    matrix = np.column_stack([random.uniform(40, 42, rows), random.uniform(5, 8, rows), random.normal(0, 1, rows)])
    return matrix, 10 + np.sin(matrix[:, 0] * 2) + np.cos(matrix[:, 1]) + 0.5 * matrix[:, 2]


def test_the_gradient_of_the_likelihood_equals_finite_differences(towns: Table) -> None:
    # pylint: disable=protected-access  # a wrong gradient is invisible from outside: the optimum would only be worse
    fitted = process(towns.schema).fit(towns.matrix, towns.target)
    rows, metric = fitted.arrays["rows"], fitted.arrays["metric"] + np.linspace(-0.3, 0.3, len(fitted.arrays["metric"]))
    near = KdTree(rows).leave_one_out(12)[1][:50]
    gradient = fitted._loss(metric, rows[:50], near, fitted._transformed_target[:50])[1]
    for index in range(len(metric)):
        step = 1e-5 * (np.arange(len(metric)) == index)
        up, down = (fitted._loss(metric + sign * step, rows[:50], near, fitted._transformed_target[:50])[0] for sign in (1, -1))
        assert gradient[index] == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-7), index


def test_optimization_increases_the_weight_of_the_informative_column() -> None:
    matrix, _ = smooth(400, seed=0)
    target = np.sin(4 * matrix[:, 2])

    def error(rounds: int) -> float:
        fitted = process(max_iter=rounds).fit(matrix[:300], target[:300])
        return float(np.abs(fitted.transform(matrix[300:])[:, 0] - target[300:]).mean())

    assert error(20) < 0.5 * error(1)


@pytest.mark.parametrize("log_target", [False, True])
def test_the_mean_predicts_a_smooth_function(log_target: bool) -> None:
    block = process(log_target=log_target, max_iter=20).fit(*smooth(400, seed=0))
    matrix, target = smooth(100, seed=1)
    columns = block.transform(matrix)
    assert np.std(columns[:, 0] - target) < 0.1 * np.std(target)
    assert block.names[0] == ("log_gp_mean" if log_target else "gp_mean")
    assert (columns[:, 1] > 0).all()


def test_the_standard_deviation_grows_far_from_training_rows() -> None:
    matrix, target = smooth(300, seed=0)
    block = process().fit(matrix, target)
    near, far = block.transform(matrix[:1] + 1e-3)[0, 1], block.transform(matrix[:1] + [30.0, 30.0, 0.0])[0, 1]
    assert far > 2 * near


def test_a_target_with_values_at_or_below_0_is_used_without_logarithm() -> None:
    matrix, target = smooth(200, seed=0)
    columns = process(log_target=True).fit_transform(matrix, target - 10)
    np.testing.assert_array_equal(columns, process(log_target=False).fit_transform(matrix, target - 10))


def test_target_means_average_the_most_similar_rows() -> None:
    matrix, target = smooth(200, seed=0)
    block = process().fit(matrix, target)
    assert block.names[2:] == ["gp_target_mean_of_1", "gp_target_mean_of_12"]
    columns = block.transform(matrix[:5])
    np.testing.assert_allclose(columns[:, 2], target[:5])  # as new rows they are most similar to themselves
    rows = block.arrays["rows"] * np.exp(block.arrays["metric"][:3])
    for row in range(5):
        similar = np.argsort(np.square(rows - rows[row]).sum(axis=1))[:12]
        assert columns[row, 3] == pytest.approx(target[similar].mean())


@pytest.mark.parametrize("left_out", [0, 7, 190, 599])
@pytest.mark.parametrize("log_target", [False, True])
def test_a_training_row_gets_the_columns_of_a_new_row_without_its_own_target(
    towns: Table, left_out: int, log_target: bool
) -> None:
    matrix = towns.matrix + np.random.default_rng(0).uniform(0, 1e-3, (len(towns), 1))  # no two distances are equal
    block = process(towns.schema, log_target=log_target)
    columns = block.fit_transform(matrix, towns.target)
    others = process(towns.schema, log_target=log_target)
    others.arrays = {
        name: np.delete(array, left_out, axis=0) if name in ROW_ARRAYS else array for name, array in block.arrays.items()
    }
    np.testing.assert_allclose(others.transform(matrix[[left_out]])[0], columns[left_out], rtol=1e-6)


def test_no_colocated_row_uses_its_own_target() -> None:
    matrix, target = smooth(40, seed=0)
    target[:15], matrix[:15] = 2.0 ** np.arange(15), matrix[0]
    nearest = process(target_means=[1]).fit_transform(matrix, target)[:15, 2]
    assert (nearest != target[:15]).all()


def test_missing_and_extreme_values_give_finite_columns(towns: Table) -> None:
    block = process(towns.schema).fit(towns.matrix, towns.target)
    extreme = np.array([[46.0, 6.0, 1e6, np.nan, 1.0, 0.0], [0.0, 0.0, -1.0, 1e9, 0.0, 2.0]])
    assert np.isfinite(block.transform(extreme)).all()


def test_a_value_out_of_the_training_range_is_clipped_to_it(towns: Table) -> None:
    block = process(towns.schema).fit(towns.matrix, towns.target)
    outside, limit = towns.matrix[:3].copy(), towns.matrix[:3].copy()
    outside[:, 2], limit[:, 2] = 1e6, towns.matrix[:, 2].max()
    np.testing.assert_array_equal(block.transform(outside), block.transform(limit))


@pytest.mark.parametrize("rows", [np.s_[:], np.s_[:1], np.s_[:0]])
def test_single_rows_get_the_same_columns_as_a_batch(towns: Table, rows: slice) -> None:
    block = process(towns.schema).fit(towns.matrix[:500], towns.target[:500])
    single = [block.transform(row[None]) for row in towns.matrix[500:][rows]]
    np.testing.assert_allclose(np.concatenate([np.empty((0, 4)), *single]), block.transform(towns.matrix[500:][rows]), rtol=1e-9)


def test_constants_give_finite_columns() -> None:
    matrix, target = smooth(60, seed=0)
    matrix[:, 2] = 0.1
    for constant in (target, np.full(60, 0.1)):
        columns = process().fit_transform(matrix, constant)
        assert np.isfinite(columns).all()
    np.testing.assert_allclose(columns[:, 0], 0.1)


def test_a_column_without_any_value_is_accepted() -> None:
    matrix, target = smooth(60, seed=0)
    matrix[:, 2] = np.nan
    assert np.isfinite(process().fit_transform(matrix, target)).all()


def test_rows_at_a_single_location_are_accepted() -> None:
    matrix, target = smooth(60, seed=0)
    matrix[:] = matrix[0]
    assert np.isfinite(process().fit_transform(matrix, target)).all()


def test_a_table_with_only_coordinates_is_accepted() -> None:
    declared = SCHEMA.to_dict()
    columns = {name: declared["columns"][name] for name in ("lat", "lon", "y")}
    matrix, target = smooth(60, seed=0)
    block = process(Schema.from_dict({**declared, "columns": columns}))
    assert np.isfinite(block.fit_transform(matrix[:, :2], target)).all()


def test_a_table_without_coordinates_gets_no_column(rentals: Table) -> None:
    block = process(rentals.schema)
    assert block.names == [] and len(rentals) == len(rentals_frame())
    assert block.fit_transform(rentals.matrix, rentals.target).shape == (len(rentals), 0)
    assert block.transform(rentals.matrix[:3]).shape == (3, 0)


def test_fewer_rows_than_neighbours_are_an_error_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match="need at least 13 training rows .got 12"):
        process().fit(*smooth(12, seed=0))


@pytest.mark.parametrize(
    "change", [{"neighbours": 0}, {"target_means": [13]}, {"target_means": [0]}, {"n_fit_rows": 0}, {"max_iter": 0}]
)
def test_an_invalid_parameter_is_an_error(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"Block gaussian_process: {next(iter(change))} must be .*got"):
        process(**change)
