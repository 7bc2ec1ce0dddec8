"""Benchmarks: the programs that measure what docs/explanation/benchmarks.md reports."""
