"""The local Gaussian process: its likelihood's slope, its predictions, and that no row sees itself."""

from typing import Any

import numpy as np
import pytest

from housing.core.errors import ConfigError
from housing.data.table import Table
from housing.features.gaussian_process import LocalGaussianProcess
from housing.features.spatial_index import build_kd_tree, query_leave_one_out
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
ROW_ARRAYS = ("rows", "targets")  # arrays with a line for each training row


def process(schema: Schema = SCHEMA, **changes: Any) -> LocalGaussianProcess:
    """A small process, not on logarithms unless told otherwise."""
    asked = {"neighbours": 12, "target_means": [1, 12], "log_target": False, "n_fit_rows": 60, "max_iter": 8, "seed": 0}
    return LocalGaussianProcess(schema, **{**asked, **changes})


def smooth(rows: int, seed: int) -> tuple[Matrix, Vector]:
    """Rows of a smooth function of place and column."""
    random = np.random.default_rng(seed)
    matrix = np.column_stack([random.uniform(40, 42, rows), random.uniform(5, 8, rows), random.normal(0, 1, rows)])
    return matrix, 10 + np.sin(matrix[:, 0] * 2) + np.cos(matrix[:, 1]) + 0.5 * matrix[:, 2]


def test_the_slope_of_the_likelihood_is_that_of_small_steps(towns: Table) -> None:
    # pylint: disable=protected-access  # nothing outside shows a wrong slope: the climb would only end lower
    fitted = process(towns.schema).fit(towns.matrix, towns.target)
    rows, metric = fitted.arrays["rows"], fitted.arrays["metric"] + np.linspace(-0.3, 0.3, len(fitted.arrays["metric"]))
    near = query_leave_one_out(build_kd_tree(rows), 12)[1][:50]
    slope = fitted._loss(metric, rows[:50], near, fitted._transformed_target[:50])[1]
    for place in range(len(metric)):
        step = 1e-5 * (np.arange(len(metric)) == place)
        up, down = (fitted._loss(metric + sign * step, rows[:50], near, fitted._transformed_target[:50])[0] for sign in (1, -1))
        assert slope[place] == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-7), place


def test_learning_finds_the_column_that_matters() -> None:
    matrix, _ = smooth(400, seed=0)
    target = np.sin(4 * matrix[:, 2])

    def off(rounds: int) -> float:
        learned = process(max_iter=rounds).fit(matrix[:300], target[:300])
        return float(np.abs(learned.transform(matrix[300:])[:, 0] - target[300:]).mean())

    assert off(20) < 0.5 * off(1)


@pytest.mark.parametrize("log_target", [False, True])
def test_its_mean_goes_through_a_smooth_function(log_target: bool) -> None:
    block = process(log_target=log_target, max_iter=20).fit(*smooth(400, seed=0))
    matrix, target = smooth(100, seed=1)
    columns = block.transform(matrix)
    assert np.std(columns[:, 0] - target) < 0.1 * np.std(target)
    assert block.names[0] == ("log_gp_mean" if log_target else "gp_mean")
    assert (columns[:, 1] > 0).all()


def test_it_is_less_sure_where_less_is_known() -> None:
    matrix, target = smooth(300, seed=0)
    block = process().fit(matrix, target)
    amid, far = block.transform(matrix[:1] + 1e-3)[0, 1], block.transform(matrix[:1] + [30.0, 30.0, 0.0])[0, 1]
    assert far > 2 * amid


def test_a_target_that_is_not_above_0_has_no_logarithm_and_is_taken_as_it_is() -> None:
    matrix, target = smooth(200, seed=0)
    columns = process(log_target=True).fit_transform(matrix, target - 10)
    np.testing.assert_array_equal(columns, process(log_target=False).fit_transform(matrix, target - 10))


def test_targets_of_the_rows_that_are_most_alike_are_averaged() -> None:
    matrix, target = smooth(200, seed=0)
    block = process().fit(matrix, target)
    assert block.names[2:] == ["gp_target_mean_of_1", "gp_target_mean_of_12"]
    got = block.transform(matrix[:5])
    np.testing.assert_allclose(got[:, 2], target[:5])  # as new rows they are like themselves
    rows = block.arrays["rows"] * np.exp(block.arrays["metric"][:3])
    for row in range(5):
        alike = np.argsort(np.square(rows - rows[row]).sum(axis=1))[:12]
        assert got[row, 3] == pytest.approx(target[alike].mean())


@pytest.mark.parametrize("left_out", [0, 7, 190, 599])
@pytest.mark.parametrize("log_target", [False, True])
def test_a_training_rows_columns_are_those_it_would_have_as_a_new_row(towns: Table, left_out: int, log_target: bool) -> None:
    matrix = towns.matrix + np.random.default_rng(0).uniform(0, 1e-3, (len(towns), 1))  # no two rows are equally far
    block = process(towns.schema, log_target=log_target)
    columns = block.fit_transform(matrix, towns.target)
    others = process(towns.schema, log_target=log_target)
    others.arrays = {
        name: np.delete(array, left_out, axis=0) if name in ROW_ARRAYS else array for name, array in block.arrays.items()
    }
    np.testing.assert_allclose(others.transform(matrix[[left_out]])[0], columns[left_out], rtol=1e-6)


def test_of_many_rows_at_one_place_none_sees_itself() -> None:
    matrix, target = smooth(40, seed=0)
    target[:15], matrix[:15] = 2.0 ** np.arange(15), matrix[0]
    nearest = process(target_means=[1]).fit_transform(matrix, target)[:15, 2]
    assert (nearest != target[:15]).all()


def test_numbers_that_are_missing_or_beyond_what_was_seen_give_finite_columns(towns: Table) -> None:
    block = process(towns.schema).fit(towns.matrix, towns.target)
    odd = np.array([[46.0, 6.0, 1e6, np.nan, 1.0, 0.0], [0.0, 0.0, -1.0, 1e9, 0.0, 2.0]])
    assert np.isfinite(block.transform(odd)).all()


def test_a_number_beyond_what_was_seen_is_taken_for_the_last_that_was(towns: Table) -> None:
    block = process(towns.schema).fit(towns.matrix, towns.target)
    beyond, last = towns.matrix[:3].copy(), towns.matrix[:3].copy()
    beyond[:, 2], last[:, 2] = 1e6, towns.matrix[:, 2].max()
    np.testing.assert_array_equal(block.transform(beyond), block.transform(last))


@pytest.mark.parametrize("rows", [np.s_[:], np.s_[:1], np.s_[:0]])
def test_rows_are_told_alone_as_together(towns: Table, rows: slice) -> None:
    block = process(towns.schema).fit(towns.matrix[:500], towns.target[:500])
    alone = [block.transform(row[None]) for row in towns.matrix[500:][rows]]
    np.testing.assert_allclose(np.concatenate([np.empty((0, 4)), *alone]), block.transform(towns.matrix[500:][rows]), rtol=1e-9)


def test_constants_give_finite_columns() -> None:
    matrix, target = smooth(60, seed=0)
    matrix[:, 2] = 0.1
    for constant in (target, np.full(60, 0.1)):
        columns = process().fit_transform(matrix, constant)
        assert np.isfinite(columns).all()
    np.testing.assert_allclose(columns[:, 0], 0.1)


def test_a_column_without_a_single_number_is_taken() -> None:
    matrix, target = smooth(60, seed=0)
    matrix[:, 2] = np.nan
    assert np.isfinite(process().fit_transform(matrix, target)).all()


def test_rows_at_one_place_alone_are_taken() -> None:
    matrix, target = smooth(60, seed=0)
    matrix[:] = matrix[0]
    assert np.isfinite(process().fit_transform(matrix, target)).all()


def test_a_table_of_places_alone_has_a_process_too() -> None:
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


def test_fewer_rows_than_neighbours_are_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match="need at least 13 training rows .got 12"):
        process().fit(*smooth(12, seed=0))


@pytest.mark.parametrize(
    "change", [{"neighbours": 0}, {"target_means": [13]}, {"target_means": [0]}, {"n_fit_rows": 0}, {"max_iter": 0}]
)
def test_what_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"Block gaussian_process: {next(iter(change))} must be .*got"):
        process(**change)
