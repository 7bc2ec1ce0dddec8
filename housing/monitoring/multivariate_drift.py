"""Multivariate drift of each window, and the contributions by which the drift of single columns is weighted."""

from collections.abc import Iterator, Mapping

from housing.bundle.bundle import Bundle
from housing.monitoring.analysis import Analysis, State, Window
from housing.monitoring.domain_classifier import measure_multivariate_drift
from housing.server_files.metric_files import series_key

MIN_SAMPLE_ROWS = 100  # of training rows; fewer say little about their joint distribution

AVAILABLE = "housing_multivariate_drift_available", "1 if the bundle has a sample of training rows to compare windows with."
AUC = "housing_multivariate_drift_auc", "AUC by which a classifier tells the latest window from training rows; 0.5: no drift."
Z = "housing_multivariate_drift_z", "Distance of that AUC from chance, in standard deviations."
COLUMN = "housing_multivariate_drift_column_auc", "By how much that AUC falls if the classifier does not see a column."
CONTRIBUTION = "housing_column_contribution_ratio", "Share of a column in the mean absolute Shapley values of training rows."


class MultivariateDriftAnalysis(Analysis):
    """Compares each window with the sample of training rows in the bundle."""

    name = "multivariate_drift"

    def analyse(self, window: Window, state: State) -> State | None:
        """Return the drift of a window, or that the bundle has no sample."""
        shares = contribution_shares(window.bundle)
        sample = window.bundle.sample
        if sample is None or len(sample) < MIN_SAMPLE_ROWS:
            return {"available": False, "contributions": shares}
        features = window.bundle.schema.features
        drift = measure_multivariate_drift(features, sample, window.matrix, shares)
        return {
            "available": True,
            "auc": drift.auc,
            "threshold": drift.threshold,
            "z": drift.z,
            "has_drifted": drift.has_drifted,
            "columns": drift.columns,
            "contributions": shares,
        }

    def series(self, labels: Mapping[str, str], result: State, state: State) -> Iterator[tuple[str, float]]:
        """Yield the drift of the latest window."""
        if not result:
            return
        yield series_key(*AVAILABLE, labels), float(result["available"])
        for column, share in result["contributions"].items():
            yield series_key(*CONTRIBUTION, {**labels, "column": column}), share
        if result["available"]:
            yield series_key(*AUC, labels), result["auc"]
            yield series_key(*Z, labels), result["z"]
            for column, loss in result["columns"].items():
                yield series_key(*COLUMN, {**labels, "column": column}), loss


def contribution_shares(bundle: Bundle) -> dict[str, float]:
    """Return the share of each column in all contributions; none for a bundle without contributions, or if all are 0."""
    contributions: dict[str, float] = bundle.reference.get("contributions", {})
    total = sum(contributions.values())
    return {name: value / total for name, value in contributions.items()} if total else {}
