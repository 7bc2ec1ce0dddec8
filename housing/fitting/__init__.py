"""Fitting: one model with its features, estimators, members and intervals."""
