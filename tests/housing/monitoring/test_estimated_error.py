"""Estimated errors: near the realised error of other rows, corrected by feedback, and absent without intervals."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from housing.bundle.bundle import Bundle
from housing.bundle.error_estimate import Correction, ErrorEstimator, LossCalibration
from housing.core.errors import BundleError
from housing.fitting.error_calibration import fit_error_estimator
from housing.monitoring.estimated_error import EstimatedError
from housing.monitoring.monitor import Monitor
from tests.support.monitoring import WINDOW_ROWS, log_requests, log_true_values, metric, monitor_settings
from tests.support.tables import rentals_frame

N_ROWS = 4000


def rows_with_errors(
    seed: int, top: float = 1.0
) -> tuple["np.ndarray[tuple[int, int], np.dtype[np.float64]]", "np.ndarray[tuple[int], np.dtype[np.float64]]"]:
    """Return inputs up to `top`, and errors whose size grows with the first input."""
    rng = np.random.default_rng(seed)
    inputs = rng.uniform(0, top, (N_ROWS, 3))
    return inputs, rng.normal(0, 0.5 + inputs[:, 0])


def test_estimates_follow_a_shift_and_their_standard_errors_hold() -> None:
    inputs, error = rows_with_errors(seed=0)
    estimator = fit_error_estimator(inputs, 0.5 + inputs[:, 0], error, None)
    deviations = []
    for seed in range(1, 41):
        rows, actual = rows_with_errors(seed, top=0.5 if seed % 2 else 1.0)
        rmse = estimator.squared.estimate(np.square(0.5 + rows[:, 0])).root()
        deviations.append((np.sqrt(np.square(actual).mean()) - rmse.value) / rmse.standard_error)
    assert np.mean(np.abs(deviations) < 2) > 0.85
    assert abs(np.mean(deviations)) < 1.5


def test_feedback_corrects_as_far_as_its_rows_allow() -> None:
    calibration = LossCalibration(factor=1.0, mean=1.0, row_variance=2.0, model_variance=0.01)
    shape = np.ones(1000)
    ratios = []
    for n_rows in (0, 20, 2000):
        known = Correction().add(np.full(n_rows, 4.0), np.ones(n_rows), keep=1.0)
        ratios.append(calibration.estimate(shape, known).value)
    assert ratios[0] == pytest.approx(1)
    assert 1 < ratios[1] < 2 < 3.5 < ratios[2] < 4


@pytest.mark.parametrize("known", [Correction(), Correction(1.0, 1.0, 1.0), Correction(0.0, 1.0, 1.0)])
@pytest.mark.parametrize("calibration", [LossCalibration(0.0, 0.0, 0.0, 0.0), LossCalibration(1.0, 1.0, 0.0, 0.0)])
def test_a_model_without_errors_on_held_out_rows_has_estimates(calibration: LossCalibration, known: Correction) -> None:
    estimate = calibration.estimate(np.ones(5), known)
    assert (estimate.value, estimate.standard_error) == (calibration.factor, 0)


def test_the_monitor_publishes_the_error_of_each_window(tmp_path: Path, bundle: Bundle) -> None:
    settings = monitor_settings(tmp_path, bundle)
    monitor = Monitor(settings, tmp_path / "metrics", [EstimatedError()])
    frame = rentals_frame(WINDOW_ROWS, seed=5)
    rows: list[dict[str, Any]] = [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
    records: list[dict[str, Any]] = bundle.schema.decode(bundle.schema.encode_records(rows))
    entries = log_requests(tmp_path, bundle, records)
    monitor.step()
    assert bundle.interval is not None and bundle.interval.error_estimator is not None
    size = bundle.predict_error_sizes(bundle.schema.encode_records(records))[1]
    expected = bundle.interval.error_estimator.absolute.factor * size.mean()
    before = metric(tmp_path, "housing_estimated_rmse")
    assert metric(tmp_path, "housing_estimated_mae") == pytest.approx(expected)
    assert 0 < metric(tmp_path, "housing_estimated_rmse_standard_error") < before
    predictions = [entry["predictions"][0] for entry in entries]
    log_true_values(tmp_path, entries, [prediction + 3 * before for prediction in predictions])
    monitor.step()
    log_requests(tmp_path, bundle, records, first=WINDOW_ROWS)
    monitor.step()
    assert metric(tmp_path, "housing_estimated_rmse") > 1.2 * before
    assert metric(tmp_path, "housing_estimated_error_correction") > 1.2


def test_a_bundle_without_intervals_says_so(tmp_path: Path, bundle: Bundle) -> None:
    settings = monitor_settings(tmp_path, replace(bundle, interval=None))
    log_requests(tmp_path, bundle, bundle.golden["rows"] * WINDOW_ROWS)
    Monitor(settings, tmp_path / "metrics", [EstimatedError()]).step()
    assert metric(tmp_path, "housing_estimated_error_available") == 0


def test_a_bundle_keeps_the_calibration_and_refuses_a_damaged_one(tmp_path: Path, bundle: Bundle) -> None:
    bundle.write(tmp_path / "bundle")
    read = Bundle.read(tmp_path / "bundle")
    assert read.interval is not None and bundle.interval is not None
    assert bundle.interval.error_estimator is not None
    assert read.interval.error_estimator == bundle.interval.error_estimator
    with pytest.raises(BundleError, match="2 x 4 finite numbers"):
        ErrorEstimator.from_array(np.full((2, 4), np.nan))
