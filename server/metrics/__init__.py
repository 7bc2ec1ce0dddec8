"""Counters that live in files shared by all workers: requests, predictions and histograms."""
