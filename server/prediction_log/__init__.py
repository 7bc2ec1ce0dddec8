"""The writer of the prediction log."""
