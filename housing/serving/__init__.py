"""Starts servers: the processes of one server, and a short-lived server for the smoke test of a promotion."""
