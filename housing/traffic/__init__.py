"""Logged traffic, predicted by a candidate: the replay of a prediction log, and the shadow that follows a running server."""
