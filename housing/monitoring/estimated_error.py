"""Estimated error: RMSE and MAE of each window before true values are known, corrected once feedback arrives."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict

import numpy as np

from housing.bundle.error_estimate import Correction, ErrorEstimator
from housing.monitoring.analysis import Analysis, State, Window
from housing.server_files.metric_files import series_key

LABELS_KEPT = 5_000  # later true values let earlier ones fade: a share 1/e is left after so many
ABSOLUTE, SQUARED = "absolute", "squared"

RMSE = "housing_estimated_rmse", "Estimated RMSE of the last window of rows."
MAE = "housing_estimated_mae", "Estimated mean absolute error of the last window of rows."
RMSE_ERROR = "housing_estimated_rmse_standard_error", "Standard error of the estimated RMSE."
MAE_ERROR = "housing_estimated_mae_standard_error", "Standard error of the estimated mean absolute error."
HELD_OUT_RMSE = "housing_held_out_rmse", "RMSE of the held-out rows on which estimated errors are calibrated."
CORRECTION = "housing_estimated_error_correction", "Ratio of realised to estimated RMSE of rows with feedback, shrunk towards 1."
AVAILABLE = "housing_estimated_error_available", "1 if the bundle can estimate errors, 0 if it was trained without intervals."


class EstimatedError(Analysis):
    """Mean estimated losses of windows. The state holds the sums of rows whose true values are known."""

    name = "estimated_error"

    def analyse(self, window: Window, state: State) -> State | None:
        """Return the estimates of a window, or that the bundle has none."""
        estimator = _estimator(window)
        if estimator is None:
            return {"available": False}
        size = window.bundle.predict_error_sizes(window.matrix)[1]
        squared = estimator.squared.estimate(np.square(size), _correction(state, SQUARED))
        mae, rmse = estimator.absolute.estimate(size, _correction(state, ABSOLUTE)), squared.root()
        return {
            "available": True,
            "mae": mae.value,
            "mae_standard_error": mae.standard_error,
            "rmse": rmse.value,
            "rmse_standard_error": rmse.standard_error,
            "held_out_rmse": float(np.sqrt(estimator.squared.mean)),
            "correction": float(np.sqrt(_correction(state, SQUARED).apply(estimator.squared)[0])),
        }

    def learn(self, labelled: Window, state: State) -> State:
        """Add rows with true values to the sums."""
        estimator = _estimator(labelled)
        if estimator is None:
            return state
        size = labelled.bundle.predict_error_sizes(labelled.matrix)[1]
        error = labelled.actual - labelled.predictions
        keep = float(np.exp(-len(error) / LABELS_KEPT))
        absolute = _correction(state, ABSOLUTE).add(np.abs(error), estimator.absolute.factor * size, keep)
        squared = _correction(state, SQUARED).add(np.square(error), estimator.squared.factor * np.square(size), keep)
        return {ABSOLUTE: asdict(absolute), SQUARED: asdict(squared)}

    def series(self, labels: Mapping[str, str], result: State, state: State) -> Iterator[tuple[str, float]]:
        """Yield the estimates of the latest window."""
        if result:
            yield series_key(*AVAILABLE, labels), float(result["available"])
        if result.get("available"):
            yield series_key(*RMSE, labels), result["rmse"]
            yield series_key(*MAE, labels), result["mae"]
            yield series_key(*RMSE_ERROR, labels), result["rmse_standard_error"]
            yield series_key(*MAE_ERROR, labels), result["mae_standard_error"]
            yield series_key(*HELD_OUT_RMSE, labels), result["held_out_rmse"]
            yield series_key(*CORRECTION, labels), result["correction"]


def _estimator(window: Window) -> ErrorEstimator | None:
    interval = window.bundle.interval
    return None if interval is None else interval.error_estimator


def _correction(state: State, loss: str) -> Correction:
    return Correction(**state.get(loss, {}))
