"""Shared foundations: errors, atomic file writes, validators, locks, process identity and the Hydra commands."""
