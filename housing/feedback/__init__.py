"""Feedback: matches labels with the prediction log, counts errors, and reads both back."""
