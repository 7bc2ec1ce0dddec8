"""Evaluation of a model on the test rows: slices, bootstrap intervals, harder splits and limitations."""
