"""Deployment: pulls and verifies versions, runs the processes of a server, and smoke-tests a promotion."""
