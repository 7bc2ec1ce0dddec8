"""Figures of runs, the style of all figures, and HTML templates."""
