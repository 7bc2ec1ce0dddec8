"""The look of figures, SVG and HTML templates."""
