"""Adds new rows to a table: match by key, validate, measure drift, append."""
