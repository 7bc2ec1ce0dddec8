"""Explanations of a single prediction: Shapley values and curves along each column."""
