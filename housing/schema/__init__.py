"""What a column allows: checks and encoding of rows, and histograms of the training data."""
