"""Shared foundations: errors, config, atomic file writes, validators, locks and process identity."""
