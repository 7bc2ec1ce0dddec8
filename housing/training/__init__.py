"""Training: from a table and settings to a scored bundle, without tracking."""
