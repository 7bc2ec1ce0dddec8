"""The gate's rules: how often chance passes, how often a better model does, what a slice has to lose before it vetoes."""

import numpy as np
import pytest
from omegaconf import DictConfig

from housing.bundle.bundle import Bundle
from housing.data.split import split
from housing.data.table import Table
from housing.evaluation.bootstrap import paired_bootstrap
from housing.evaluation.slices import SliceMask
from housing.promotion import gate
from housing.promotion.decision import HOLD, PROMOTE, REJECT, Check
from housing.schema.column import Vector
from housing.schema.table_schema import Schema
from tests.support.tables import config

ROWS, ROUNDS, ALIKE = 1000, 200, 0.2  # test rows; challengers; spread of the difference of two errors, in units of the error


@pytest.fixture(scope="module")
def rules() -> DictConfig:
    """The gate's config, with fewer resamples."""
    return config("promote", "data=rentals", "gate.n_resamples=500").gate


def errors(random: np.random.Generator, better: float, rows: int = ROWS) -> tuple[Vector, Vector]:
    """Errors of a challenger, better by a share, and of a champion, as two fits of one model have them."""
    theirs = random.standard_t(5, rows)
    noise = random.normal(0, ALIKE * np.sqrt(5 / 3), rows)
    return (1 - better) * (theirs + noise) / np.sqrt(1 + ALIKE**2), theirs


def verdicts(rules: DictConfig, better: float) -> list[str]:
    """What is decided about two hundred challengers."""
    random = np.random.default_rng(1)
    return [gate.decide_verdict(gate.compare_overall(rules, "rmse", *errors(random, better)), []) for _ in range(ROUNDS)]


def test_of_equal_challengers_one_in_twenty_is_promoted_at_most(rules: DictConfig) -> None:
    found = verdicts(rules, 0.0)
    assert found.count(PROMOTE) <= 0.05 * ROUNDS and found.count(REJECT) <= 0.05 * ROUNDS


def test_of_challengers_that_are_better_by_two_percent_four_in_five_are_promoted(rules: DictConfig) -> None:
    found = verdicts(rules, 0.02)
    assert found.count(PROMOTE) >= 0.8 * ROUNDS and REJECT not in found


def test_the_resamples_spread_as_the_difference_of_fresh_rows_does() -> None:
    random = np.random.default_rng(0)
    mine, theirs = errors(random, 0.02)
    found = paired_bootstrap(mine, theirs, "rmse", confidence=0.975, n_resamples=4000, seed=3)
    assert found.difference == pytest.approx(np.sqrt(np.mean(mine**2)) - np.sqrt(np.mean(theirs**2)))
    fresh = [errors(random, 0.02) for _ in range(2000)]
    differences = [np.sqrt(np.mean(one**2)) - np.sqrt(np.mean(other**2)) for one, other in fresh]
    assert found.upper - found.lower == pytest.approx(np.subtract(*np.quantile(differences, [0.975, 0.025])), rel=0.2)
    assert (
        found
        == paired_bootstrap(mine, theirs, "rmse", 0.975, 4000, seed=3)
        != paired_bootstrap(mine, theirs, "rmse", 0.975, 4000, seed=4)
    )


def test_many_rows_are_resampled_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = errors(np.random.default_rng(0), 0.02, rows=100)
    monkeypatch.setattr("housing.evaluation.bootstrap.BATCH_SIZE", 100 * 1000)
    whole = paired_bootstrap(mine, theirs, "rmse", 0.975, n_resamples=1000, seed=0)
    monkeypatch.setattr("housing.evaluation.bootstrap.BATCH_SIZE", 100 * 7)
    assert paired_bootstrap(mine, theirs, "rmse", 0.975, n_resamples=1000, seed=0) == whole


@pytest.mark.parametrize(("found", "verdict"), [("better", PROMOTE), ("equal", HOLD), ("worse", REJECT)])
def test_a_failed_check_rejects_whatever_the_difference(rules: DictConfig, found: str, verdict: str) -> None:
    share = {"better": 0.1, "equal": 0.0, "worse": -0.1}[found]
    difference = gate.compare_overall(rules, "rmse", *errors(np.random.default_rng(2), share))
    passed, failed = Check("one", "", "", True), Check("other", "", "", False)
    assert gate.decide_verdict(difference, [passed]) == verdict
    assert gate.decide_verdict(difference, [passed, failed]) == REJECT


def in_slices(count: int, rows: int) -> list[SliceMask]:
    """Rows in so many slices of the same size, one after the other."""
    return [SliceMask("part", str(number), np.arange(rows) // (rows // count) == number) for number in range(count)]


def test_a_slice_vetoes_where_it_is_worse_by_more_than_the_margin_and_no_chance(rules: DictConfig) -> None:
    mine, theirs = errors(np.random.default_rng(3), 0.1)
    groups = in_slices(5, ROWS)
    assert all(check.passed for check in gate.slice_checks(rules, "rmse", groups, mine, theirs))
    mine[groups[2].mask] *= 1.4  # better over all rows, and much worse on a fifth of them
    checks = gate.slice_checks(rules, "rmse", groups, mine, theirs)
    assert [check.name for check in checks if not check.passed] == ["slice part 2"]
    lenient = config("promote", "data=rentals", "gate.n_resamples=500", "gate.slices.max_regression=0.5").gate
    assert all(check.passed for check in gate.slice_checks(lenient, "rmse", groups, mine, theirs))


def test_a_slice_of_few_rows_says_nothing(rules: DictConfig) -> None:
    mine, theirs = errors(np.random.default_rng(3), 0.0)
    few = [SliceMask("part", "few", np.arange(ROWS) < rules.slices.min_rows - 1)]
    assert gate.slice_checks(rules, "rmse", few, 3 * mine, theirs) == []


def test_many_slices_do_not_veto_equal_challengers_by_chance(rules: DictConfig) -> None:
    random, groups = np.random.default_rng(4), in_slices(20, 1200)
    rounds = [gate.slice_checks(rules, "rmse", groups, *errors(random, 0.0, 1200)) for _ in range(100)]
    assert sum(not all(check.passed for check in checks) for checks in rounds) <= 8
    over_margin = sum(any((check.value or 0.0) > rules.slices.max_regression for check in checks) for checks in rounds)
    assert over_margin > 30  # the margin alone would have


def test_coverage_is_that_of_the_intervals(rules: DictConfig, rentals: Table, bundle: Bundle) -> None:
    rows = split(rentals, config("train", "data=rentals").split).test
    matrix, actual = rentals.matrix[rows], rentals.target[rows]
    (check,) = gate.coverage_check(rules, bundle, matrix, actual)
    _, lower, upper = bundle.predict_interval(matrix, 0.9)
    assert check.value == np.mean((lower <= actual) & (actual <= upper)) and check.passed
    (far,) = gate.coverage_check(rules, bundle, matrix, actual + 10_000)
    assert not far.passed and far.actual == "intervals at 90% hold 0.0%"


def test_a_column_that_callers_do_not_send_is_no_column_to_need(rentals: Table) -> None:
    declared = rentals.schema.to_dict()
    declared["columns"]["floor"] = {"type": "int", "nullable": True}
    (check,) = gate.columns_check(Schema.from_dict(declared), rentals.schema)
    assert (check.passed, check.actual) == (False, "column floor is new")
    assert not list(gate.columns_check(rentals.schema, None))
