"""Scoring: metrics, the metric that runs are ranked by, folds, and held-out predictions."""
