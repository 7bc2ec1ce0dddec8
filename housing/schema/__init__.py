"""Table schemas: validation and encoding of rows, and histograms of the training rows."""
