"""Limitations: each rule against an evaluation that just meets it."""

import numpy as np

from housing.evaluation.limitations import find_limitations
from housing.evaluation.results import DistanceBand, Evaluation, HarderSplitResult, IntervalCoverage
from housing.evaluation.slices import SliceMask, score_slices
from housing.schema.column import Column

TARGET = Column("price", "float", "target", unit="EUR")
ERROR = np.concatenate([np.full(40, 3.0), np.full(40, -0.8), np.zeros(920), np.full(20, 9.0)])


def make_evaluation(**changes: object) -> Evaluation:
    """Return an evaluation without limitations."""
    content = {
        "rows": 1000,
        "scores": {"rmse": 1.0},
        "rmse_lower": 0.9,
        "rmse_upper": 1.1,
        "slices": [],
        "harder_splits": [],
        "coverage": [],
        "limitations": [],
        "skipped": [],
    }
    return Evaluation(**{**content, **changes})  # type: ignore[arg-type]


def make_slice(kind: str, name: str, start: int, stop: int) -> SliceMask:
    """Return a slice of consecutive rows."""
    rows = np.arange(len(ERROR))
    return SliceMask(kind, name, (rows >= start) & (rows < stop))


def test_a_good_model_has_no_limitations() -> None:
    assert not find_limitations(make_evaluation(), TARGET)


def test_slices_with_large_or_biased_errors_and_capped_rows_are_listed() -> None:
    slices = [
        make_slice("region", "hills", 0, 40),
        make_slice("region", "coast", 40, 80),
        make_slice("age", "few", 1000, 1020),
        make_slice("capped", "at 5", 40, 80),
    ]
    evaluation = make_evaluation(slices=score_slices(slices, ERROR, np.zeros(len(ERROR)), None))
    capped, hills, coast = find_limitations(evaluation, TARGET)
    assert capped.startswith("Rows with price capped at 5 are underestimated by 0.8 (in EUR)") and "(40 rows)" in capped
    assert hills.startswith(f"Region hills: the RMSE is 3, {3.0 / np.sqrt(np.mean(ERROR**2)):.1f} times")
    assert coast.startswith("Region coast: predictions are too low by 0.8 (in EUR)")


def test_harder_splits_and_the_distance_from_which_every_band_is_worse_are_listed() -> None:
    bands = [
        DistanceBand(0, 1, 50, 1.0, 0),
        DistanceBand(1, 2, 50, 1.6, 0),
        DistanceBand(2, 5, 50, 1.4, 0),
        DistanceBand(5, 9, 50, 1.6, 0),
        DistanceBand(9, None, 50, 2, 0),
    ]
    results = [
        HarderSplitResult("grouped", 1, 100, {"rmse": 1.2}),
        HarderSplitResult("blocks", 1, 200, {"rmse": 1.8}, bands),
    ]
    blocks, distance = find_limitations(make_evaluation(harder_splits=results), TARGET)
    assert "areas" in blocks and "1.8 instead of 1 (200 rows held out)" in blocks
    assert "more than 5 km" in distance and "within 1 km" in distance


def test_intervals_with_low_coverage_are_listed() -> None:
    coverage = [
        IntervalCoverage("all", "all rows", 1000, 0.9, 1.0),
        IntervalCoverage("age", "1 to 2", 200, 0.8, 1.0),
        IntervalCoverage("age", "3", 9, 0, 1.0),  # too few rows
    ]
    (limitation,) = find_limitations(make_evaluation(coverage=coverage), TARGET)
    assert limitation == "age 1 to 2: 90% intervals cover 80.0% (200 rows)."
