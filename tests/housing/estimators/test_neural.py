"""The neural network: what it learns, where it stops, and what it refuses."""

import numpy as np
import pytest

from housing.core.errors import HousingError
from housing.estimators.neural import NeuralRegressor
from housing.estimators.weighted_rows import WeightedRows
from housing.fitting.fitting import FitSettings
from housing.schema.column import Matrix, Vector
from tests.support.tables import config


def smooth_rows(n_rows: int, noise: float = 0.0) -> tuple[Matrix, Vector]:
    """Return three columns in different units, the last of which is constant, and a smooth function of the others."""
    random = np.random.default_rng(n_rows)
    inputs = random.uniform(-1, 1, (n_rows, 2))
    target = 5e4 * (2 + np.sin(3 * inputs[:, 0]) * inputs[:, 1] + noise * random.standard_normal(n_rows))
    return np.column_stack([inputs[:, 0], 1e6 * inputs[:, 1], np.full(n_rows, 7.0)]), target


def small_network(epochs: int = 119) -> NeuralRegressor:
    """Return a network that fits in a tenth of a second."""
    return NeuralRegressor(epochs=epochs, width=32, batch_rows=64, random_state=3)


def share_of_error(network: NeuralRegressor, columns: Matrix, target: Vector) -> float:
    """Return the root mean squared error, relative to the standard deviation of the target."""
    return float(np.sqrt(np.mean((network.predict(columns) - target) ** 2)) / target.std())


def test_a_smooth_function_is_learned_and_the_same_seed_gives_the_same_network() -> None:
    columns, target = smooth_rows(500)
    unseen, expected = smooth_rows(400)
    network = small_network().fit(columns, target)
    assert share_of_error(network, unseen, expected) < 0.05
    np.testing.assert_array_equal(network.predict(unseen), small_network().fit(columns, target).predict(unseen))


def test_rows_without_weight_do_not_count() -> None:
    columns, target = smooth_rows(500)
    weight = np.where(np.arange(500) % 5 == 0, 1e-9, 1.0)
    network = small_network().fit(columns, np.where(weight < 1, target - 3e4, target), weight)
    assert share_of_error(network, columns[weight == 1], target[weight == 1]) < 0.05


def test_the_cycle_with_the_lowest_validation_error_is_kept_and_no_later_one_is_started() -> None:
    training, validation = WeightedRows(*smooth_rows(120, noise=3.0), None), WeightedRows(*smooth_rows(400, noise=3.0), None)
    epochs: list[int] = []
    network = small_network(255).fit_cycles(training, validation, 30, lambda done, _: epochs.append(done))
    assert network.best_epochs_ == 17 and epochs == list(range(1, 52))
    first_cycle = small_network(17).fit(training.columns, training.target)
    np.testing.assert_array_equal(network.predict(validation.columns), first_cycle.predict(validation.columns))


@pytest.mark.parametrize(("epochs", "fitted"), [(1, 17), (33, 17), (34, 51), (119, 119), (200, 255)])
def test_epochs_end_with_the_nearest_cycle(epochs: int, fitted: int) -> None:
    assert small_network(epochs).fit(*smooth_rows(64)).best_epochs_ == fitted


def test_an_extreme_value_has_a_limited_influence() -> None:
    columns, target = smooth_rows(500)
    network = small_network(17).fit(columns, target)
    extreme = network.predict(np.array([[0.5, 1e12, 7.0], [0.5, 1e15, 7.0]]))
    assert np.isfinite(extreme).all() and extreme[0] == pytest.approx(extreme[1])


def test_a_network_that_diverges_is_refused() -> None:
    with pytest.raises(ValueError, match="diverged with learning_rate=1e[+]30; use a lower one"):
        NeuralRegressor(epochs=17, width=8, learning_rate=1e30, random_state=0).fit(*smooth_rows(64))


@pytest.mark.parametrize("override", ["epochs=0", "width=1.5", "learning_rate=0", "depth=3"])
def test_arguments_are_checked_before_anything_is_fitted(override: str) -> None:
    argument = override.partition("=")[0]
    with pytest.raises(HousingError, match=argument):
        FitSettings.from_config(config("train", "data=rentals", "model=neural", f"++model.estimator.{override}"))
