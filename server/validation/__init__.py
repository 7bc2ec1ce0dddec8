"""Validation: from a request body to a matrix, or to a list of violations."""
