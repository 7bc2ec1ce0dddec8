"""From a config and a table to a scored bundle; tracks nothing."""
