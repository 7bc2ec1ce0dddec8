"""The gate's rules: error rates of the verdict, and the conditions under which a check fails."""

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from housing.bundle.bundle import Bundle
from housing.data.split import split
from housing.data.table import Table
from housing.data.units import Units
from housing.evaluation.slices import SliceMask
from housing.promotion import gate
from housing.promotion.decision import HOLD, PROMOTE, REJECT, Check
from housing.promotion.settings import GateSettings
from housing.schema.column import Vector
from housing.schema.table_schema import Schema
from tests.support.tables import config

ROWS, REPETITIONS = 1000, 200
MOST_FALSE_VERDICTS = int(binom.ppf(0.9999, REPETITIONS, 0.025))  # exceeded once in 10,000 simulations
DISSIMILARITY = 0.2  # spread of the difference of two models' errors, in units of the error
RULES = GateSettings(
    metric="rmse",
    confidence=0.975,
    min_rows=100,
    n_resamples=500,
    seed=0,
    max_slice_regression=0.05,
    min_slice_rows=50,
    nominal_coverage=0.9,
    min_coverage=0.8,
    max_coverage=0.98,
)


def make_errors(random: np.random.Generator, improvement: float, rows: int = ROWS) -> tuple[Vector, Vector]:
    """Return errors of a challenger that is better by a share, and of a champion; they correlate like two fits of one model."""
    champion = random.standard_t(5, rows)
    noise = random.normal(0, DISSIMILARITY * np.sqrt(5 / 3), rows)
    return (1 - improvement) * (champion + noise) / np.sqrt(1 + DISSIMILARITY**2), champion


def make_verdicts(improvement: float, rows: int = ROWS) -> list[str]:
    """Return the verdicts on 200 challengers that are better by a share."""
    random = np.random.default_rng(1)
    differences = (gate.compare_overall(RULES, *make_errors(random, improvement, rows)) for _ in range(REPETITIONS))
    return [gate.decide_verdict(difference, []) for difference in differences]


def test_settings_have_the_values_of_the_config() -> None:
    cfg = config("promote", "data=rentals", "gate.n_resamples=500", "gate.smoke_test_seconds=null")
    assert GateSettings.from_config(cfg) == RULES


def test_at_most_one_in_forty_equal_challengers_is_promoted_or_rejected() -> None:
    verdicts = make_verdicts(0.0)
    assert verdicts.count(PROMOTE) <= MOST_FALSE_VERDICTS
    assert verdicts.count(REJECT) <= MOST_FALSE_VERDICTS


def test_four_in_five_challengers_that_are_two_percent_better_are_promoted_with_2000_test_rows() -> None:
    verdicts = make_verdicts(0.02, rows=2000)
    assert verdicts.count(PROMOTE) >= 0.8 * REPETITIONS
    assert REJECT not in verdicts


@pytest.mark.parametrize(("improvement", "verdict"), [(0.1, PROMOTE), (0.0, HOLD), (-0.1, REJECT)])
def test_a_failed_check_rejects_whatever_the_difference(improvement: float, verdict: str) -> None:
    difference = gate.compare_overall(RULES, *make_errors(np.random.default_rng(2), improvement))
    passed, failed = Check("first", "", "", True), Check("second", "", "", False)
    assert gate.decide_verdict(difference, [passed]) == verdict
    assert gate.decide_verdict(difference, [passed, failed]) == REJECT


@pytest.mark.parametrize(
    ("improvement", "start"), [(0.1, "significantly better"), (0.0, "no significant difference"), (-0.1, "significantly worse")]
)
def test_the_comparison_is_described_with_both_scores(improvement: float, start: str) -> None:
    difference = gate.compare_overall(RULES, *make_errors(np.random.default_rng(2), improvement))
    description = gate.describe(RULES, difference, "version 1")
    assert description.startswith(f"{start}: test rmse {difference.challenger_score:.4f} against")
    assert f"{difference.champion_score:.4f} of version 1" in description and "97.5% confidence" in description


def test_too_few_rows_are_a_hold_that_says_how_many_are_needed() -> None:
    random = np.random.default_rng(0)
    for rows in (1, 3, 99):
        champion = random.normal(0, 1, rows)
        difference = gate.compare_overall(RULES, 0.01 * champion, champion)
        assert gate.decide_verdict(difference, []) == HOLD
        description = gate.describe(RULES, difference, "version 1")
        assert (
            description.startswith("too few test rows to tell")
            and f"number of test rows: {rows}, expected at least 100" in description
        )
    unclear = gate.compare_overall(RULES, *make_errors(np.random.default_rng(2), 0.0))
    assert re.search(
        r"; a difference of this size would need about [\d,]+ test rows$", gate.describe(RULES, unclear, "version 1")
    )


def test_a_fragile_difference_is_a_hold_that_says_why() -> None:
    champion, challenger = np.full(200, 0.1), np.zeros(200)
    challenger[0] = 6.0  # better in all other rows
    rules = replace(RULES, metric="mae")
    difference = gate.compare_overall(rules, challenger, champion)
    assert gate.decide_verdict(difference, []) == HOLD
    description = gate.describe(rules, difference, "version 1")
    assert description.startswith("no significant difference") and "few further rows" in description


def test_the_rows_that_carry_a_heavy_tailed_difference_are_counted() -> None:
    champion = np.random.default_rng(0).normal(0, 1, 4000)
    challenger = champion.copy()
    champion[:3] = 1000.0
    difference = gate.compare_overall(RULES, challenger, champion)
    assert gate.decide_verdict(difference, []) == HOLD
    assert gate.describe_concentration(difference) == "half of the difference comes from 2 of 4,000 test rows"


def make_slices(count: int, rows: int) -> list[SliceMask]:
    """Return slices of equal size that follow each other."""
    return [SliceMask("part", str(number), np.arange(rows) // (rows // count) == number) for number in range(count)]


def test_a_slice_fails_if_it_is_significantly_worse_by_more_than_the_allowed_regression() -> None:
    challenger, champion = make_errors(np.random.default_rng(3), 0.1)
    slices = make_slices(5, ROWS)
    assert all(check.passed for check in gate.slice_checks(RULES, slices, challenger, champion))
    challenger[slices[2].mask] *= 1.4  # better over all rows, and much worse on a fifth of them
    checks = gate.slice_checks(RULES, slices, challenger, champion)
    assert [check.name for check in checks if not check.passed] == ["slice part 2"]
    lenient = replace(RULES, max_slice_regression=0.5)
    assert all(check.passed for check in gate.slice_checks(lenient, slices, challenger, champion))


def test_a_small_slice_is_not_checked() -> None:
    challenger, champion = make_errors(np.random.default_rng(3), 0.0)
    small = SliceMask("part", "small", np.arange(ROWS) < RULES.min_slice_rows - 1)
    assert not gate.slice_checks(RULES, [small], 3 * challenger, champion)


def test_many_slices_of_equal_challengers_rarely_fail_by_chance() -> None:
    random, slices = np.random.default_rng(4), make_slices(20, 1200)
    repetitions = [gate.slice_checks(RULES, slices, *make_errors(random, 0.0, 1200)) for _ in range(100)]
    assert sum(not all(check.passed for check in checks) for checks in repetitions) <= binom.ppf(0.9999, 100, 0.025)
    exceeded = sum(any((check.value or 0.0) > RULES.max_slice_regression for check in checks) for checks in repetitions)
    assert exceeded > 30  # without the significance test, these would have failed


def test_coverage_is_that_of_the_prediction_intervals(rentals: Table, bundle: Bundle) -> None:
    rows = split(rentals, config("train", "data=rentals").split).test
    matrix, actual = rentals.matrix[rows], rentals.target[rows]
    (check,) = gate.coverage_check(RULES, bundle, matrix, actual)
    _, lower, upper = bundle.predict_interval(matrix, 0.9)
    assert check.value == np.mean((lower <= actual) & (actual <= upper)) and check.passed
    (missed,) = gate.coverage_check(RULES, bundle, matrix, actual + 10_000)
    assert not missed.passed and missed.value == 0.0


@pytest.mark.parametrize(
    ("successes", "trials", "lower", "upper"), [(20, 20, 0.8316, 1.0), (0, 20, 0.0, 0.1684), (5, 10, 0.1871, 0.8129)]
)
def test_the_interval_of_a_share_is_that_of_clopper_and_pearson(successes: int, trials: int, lower: float, upper: float) -> None:
    assert gate.binomial_interval(successes, trials, 0.975) == pytest.approx((lower, upper), abs=1e-4)


def test_coverage_that_chance_explains_does_not_fail(rentals: Table, bundle: Bundle) -> None:
    rows = split(rentals, config("train", "data=rentals").split).test
    _, lower, upper = bundle.predict_interval(rentals.matrix[rows], 0.9)
    inside = rows[(lower <= rentals.target[rows]) & (rentals.target[rows] <= upper)]
    few, many = inside[:20], np.tile(inside, 10)
    (check,) = gate.coverage_check(RULES, bundle, rentals.matrix[few], rentals.target[few])
    assert check.passed and check.value == 1.0 and "83.2% to 100.0%" in check.actual
    (check,) = gate.coverage_check(RULES, bundle, rentals.matrix[many], rentals.target[many])
    assert not check.passed


def test_costs_fail_above_their_limits() -> None:
    costs = {"latency_us": 200.0, "model_bytes": 10.0}
    assert all(check.passed for check in gate.cost_checks(RULES, costs))
    limited = replace(RULES, max_latency_us=100.0, max_model_bytes=10.0)
    assert [check.passed for check in gate.cost_checks(limited, costs)] == [False, True]


@pytest.mark.parametrize("nullable", [False, True])
def test_a_new_column_breaks_requests_unless_it_is_nullable(rentals: Table, nullable: bool) -> None:
    declared = rentals.schema.to_dict()
    declared["columns"]["floor"] = {"type": "int", "nullable": nullable}
    (check,) = gate.columns_check(Schema.from_dict(declared), rentals.schema)
    assert check.passed == nullable and ("floor" in check.actual) != nullable
    assert not list(gate.columns_check(rentals.schema, None))


def make_customers(random: np.random.Generator, improvement: float, customers: int = 200) -> tuple[Vector, Vector, Units]:
    """Return errors of a challenger and a champion on ten rows of each customer, and the customers."""
    of_row = np.repeat(np.arange(customers), 10)
    champion, challenger = (random.normal(size=customers)[of_row] + 0.1 * random.normal(size=len(of_row)) for _ in range(2))
    return (1 - improvement) * challenger, champion, Units("values of customer", of_row)


def test_equal_challengers_are_rarely_promoted_on_repeating_customers() -> None:
    random = np.random.default_rng(5)
    verdicts, by_row = [], []
    for _ in range(REPETITIONS):
        challenger, champion, units = make_customers(random, 0.0)
        verdicts.append(gate.decide_verdict(gate.compare_overall(RULES, challenger, champion, units), []))
        by_row.append(gate.decide_verdict(gate.compare_overall(RULES, challenger, champion), []))
    assert max(verdicts.count(PROMOTE), verdicts.count(REJECT)) <= MOST_FALSE_VERDICTS
    assert by_row.count(PROMOTE) > 2 * MOST_FALSE_VERDICTS  # as if each row were a customer of its own


def test_units_are_counted_and_named_instead_of_rows() -> None:
    difference = gate.compare_overall(RULES, *make_customers(np.random.default_rng(5), 0.5))
    assert gate.decide_verdict(difference, []) == PROMOTE
    assert (difference.rows, difference.units) == (2000, 200)
    assert "2,000 test rows belong to 200 values of customer" in gate.describe_units(difference)
    assert gate.describe_concentration(difference).endswith(" of 200 values of customer")
    few = gate.compare_overall(RULES, *make_customers(np.random.default_rng(5), 0.5, customers=99))
    assert gate.decide_verdict(few, []) == HOLD
    assert "number of values of customer: 99, expected at least 100" in gate.describe(RULES, few, "version 1")


def test_slices_of_few_customers_are_not_checked() -> None:
    challenger, champion, units = make_customers(np.random.default_rng(6), -2.0)
    slices = [SliceMask("part", name, units.of_row < customers) for name, customers in (("large", 60), ("small", 49))]
    checks = gate.slice_checks(RULES, slices, challenger, champion, units)
    assert [(check.name, check.passed) for check in checks] == [("slice part large", False)]


def test_rows_of_a_customer_that_are_alike_say_as_much_about_coverage_as_one() -> None:
    random, customer = np.random.default_rng(7), np.repeat(np.arange(300), 10)
    alike, independent = random.random(300)[customer] < 0.9, random.random(3000) < 0.9
    units = Units("customers", customer)
    assert gate.effective_rows(alike, units, None) == pytest.approx(300, rel=0.01)
    assert gate.effective_rows(independent, units, None) > 2000
    assert gate.effective_rows(np.ones(3000, dtype=bool), units, None) == 300
